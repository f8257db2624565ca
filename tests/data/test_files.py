import sys
from pathlib import Path

import pytest

from multibox.data.files import list_files
from tests.data.folders import write_text


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path):
    root, outside = tmp_path / "set", tmp_path / "elsewhere"
    for file in (root / "a.txt", root / "b" / "c.txt", outside / "d.txt", outside / "e" / "f.txt"):
        write_text(file, "")
    for link, target in {
        root / "linked": outside,
        root / "again": outside,  # the same
        root / "b" / "root": root,  # a circle
        root / "b2": root / "b",  # listed under its own name
        outside / "e" / "up": outside,  # a circle beyond the root
        outside / "back": root,
        root / "broken": tmp_path / "nowhere",
    }.items():
        link.symlink_to(target, target_is_directory=True)
    found = [file.relative_to(root).as_posix() for file in list_files(root, {".txt"})]
    assert sorted(name.rpartition("/")[2] for name in found) == ["a.txt", "c.txt", "d.txt", "f.txt"]
    assert {"a.txt", "b/c.txt"} < set(found)
    linked = tmp_path / "link to the set"
    linked.symlink_to(root, target_is_directory=True)
    assert len(list_files(linked, {".txt"})) == 4
