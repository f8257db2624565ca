"""Answer the second question of reading: which image belongs to each annotation?

The longest end of a stated path that exists, in any of the `SPELLINGS`, and the image of the same name as the file.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from multibox.data.files import FileIndex, stem_of
from multibox.data.splits import PATH_LIMIT, PLAIN_FOLDERS, kinds_in, kinds_of


class ImageFinder:
    """Finds images by a path that was written on any machine, or by the file that annotates them."""

    def __init__(self, images: Sequence[Path], root: Path) -> None:
        """Takes all images of a data set, and its folder."""
        self._root = root
        self._folders: dict[Path, tuple[str, ...]] = {}
        self._kinds: dict[Path, frozenset[str]] = {}
        self._by_name = FileIndex((None, stem_of(image.name), image) for image in images)
        self._by_end: dict[int, FileIndex] = {}
        self._images = images

    def find(self, stated: str, *, near: Path, split: str = "") -> list[Path]:
        """Returns the image that a path means, or several if it cannot be told which, or none.

        Args:
            stated: A name or path, perhaps with the prefix, drive or backslashes of another machine.
            near: The folder of the file that states it.
            split: The split that the image is in, if it is known. An image in the folder of another split is not taken
                if the path does not name that folder.
        """
        for text in path_variants(stated if len(stated) <= PATH_LIMIT else ""):
            *folders, name = [part for part in text.split("/") if part not in ("", ".", "..")] or [""]
            wanted = kinds_in(folders[::-1]) | kinds_of(split)  # the last folder: the others may be of a user
            ends = self._ends(folders, name) if name else iter(())
            kept = ([image for image in some if not self._is_of_another(image.parent, wanted)] for some in ends)
            best = self._nearest(next(filter(None, kept), []), [(*folders, name)], near)
            if best and (len(folders) == 0 or best[0].as_posix().endswith("/".join((*folders, name)))):
                return best
            for start in (near, self._root):
                if (path := start / text).name and os.path.isfile(path) and path.suffix:  # also outside the data set
                    return [path]
            if best:
                return best
        return []

    def pair(self, file: Path, stated: Sequence[str]) -> list[Path]:
        """Returns the image that a file annotates: the one of its name, or else the one that it states.

        Args:
            file: The file of annotations.
            stated: Names or paths of the image in it. They are often outdated, so the name of the file comes first.
        """
        stem = stem_of(file.stem)
        images = self._by_place.find(self._place(file.parent), stem)
        if not images:
            wanted = kinds_in(self._parts(file.parent))
            images = [
                image for image in self._by_name.find(None, stem) if not self._is_of_another(image.parent, wanted)
            ]
        if images:
            paths = [text.split("/") for each in stated for text in path_variants(each)]
            return self._nearest(images, paths, file.parent)
        return next((found for each in stated if (found := self.find(each, near=file.parent))), [])

    def _ends(self, folders: Sequence[str], name: str) -> Iterator[list[Path]]:
        """Yields the images with the last two folders and the name of a path, with one folder, and with the stem alone.

        Of a thousand videos that all have a `000001.jpg`, few have its folders.
        """
        for count in range(min(len(folders), 2), 0, -1):
            if count not in self._by_end:
                ends = ((_lower(image.parts[-1 - count : -1]), image.name, image) for image in self._images)
                self._by_end[count] = FileIndex(ends)
            yield self._by_end[count].find(_lower(folders[-count:]), name)
        yield self._by_name.find(None, stem_of(name))

    @cached_property
    def _by_place(self) -> FileIndex:
        return FileIndex((self._place(image.parent), stem_of(image.name), image) for image in self._images)

    def _nearest(self, images: Sequence[Path], stated: Sequence[Sequence[str]], near: Path) -> list[Path]:
        """Returns the images that agree best with a stated path, of these the nearest to a folder."""
        if len(images) < 2:
            return list(images)

        def rank(image: Path) -> tuple[int, int, int, bool]:
            same_name, same_end = max((_agreement(image, parts) for parts in stated), default=(0, 0))
            plain = image.parent.name.lower() in PLAIN_FOLDERS
            return same_name, same_end, -_distance(image.parent, near), plain

        ranks = [rank(image) for image in images]
        return [image for image, each in zip(images, ranks, strict=True) if each == max(ranks)]

    def _is_of_another(self, folder: Path, wanted: frozenset[str]) -> bool:
        """Returns whether a folder is named after another split than those that are wanted."""
        if wanted and folder not in self._kinds:
            self._kinds[folder] = kinds_in(self._parts(folder))
        return bool(wanted) and bool(kinds := self._kinds[folder]) and not kinds & wanted

    def _place(self, folder: Path) -> tuple[str, ...]:
        """Returns the folders that tell images of the same name apart: `('train',)` for `images/Train`."""
        return tuple(part.lower() for part in self._parts(folder) if part.lower() not in PLAIN_FOLDERS)

    def _parts(self, folder: Path) -> tuple[str, ...]:
        if folder not in self._folders:
            inside = folder.is_relative_to(self._root)
            self._folders[folder] = folder.relative_to(self._root).parts if inside else folder.parts
        return self._folders[folder]


def path_variants(name: str) -> Iterator[str]:
    """Yields the path as written, and the path with slashes in place of Windows' backslashes."""
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")


def _lower(folders: Sequence[str]) -> tuple[str, ...]:
    return tuple(folder.lower() for folder in folders)


def _agreement(image: Path, stated: Sequence[str]) -> tuple[int, int]:
    """Returns whether a stated path has the image's name, and how many folders at its end are the image's."""
    folders = [part.lower() for part in image.parts[:-1]]
    count = 0
    for ours, theirs in zip(reversed(folders), reversed(stated[:-1]), strict=False):
        if ours != theirs.lower():
            break
        count += 1
    return int(image.name.lower() == stated[-1].lower()), count


def _distance(folder: Path, other: Path) -> int:
    """Returns how many steps up and down lead from one folder to the other."""
    common = len(os.path.commonprefix([folder.parts, other.parts]))  # noqa: RUF071 - of parts, not of characters
    return len(folder.parts) + len(other.parts) - 2 * common
