from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox.data import Dataset, DatasetError, GroundTruth, Problem, Sample, check_dataset
from multibox.data.check import find_shared_images, find_undecodable, find_unused_classes, leave_out


def sample(image: Path | np.ndarray, *labels: int, name: str = "", crowd: bool = False) -> Sample:
    truth = GroundTruth([[0, 0, 5, 5]] * len(labels), list(labels), crowd=[crowd] * len(labels))
    return Sample(name or Path(str(image)).name, image, 48, 64, truth, 0)


def dataset(name: str, *samples: Sample, problems: tuple[Problem, ...] = ()) -> Dataset:
    return Dataset(name, ("cat", "dog", "hen"), samples, problems)


def write_noise(file: Path, seed: int, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return file


def truncated(file: Path, seed: int = 0) -> Path:
    write_noise(file, seed)
    file.write_bytes(file.read_bytes()[:-600])
    return file


def test_no_images():
    empty = dataset("empty")
    assert find_undecodable(empty) == {}
    assert find_shared_images(empty, empty) == []
    assert find_unused_classes(empty) == ("cat", "dog", "hen")
    assert check_dataset({}) == ()


@pytest.mark.parametrize("threads", [1, 3, None])
def test_images_that_cannot_be_decoded_are_named(tmp_path: Path, threads: int | None):
    files = [write_noise(tmp_path / f"{number}.png", number) for number in range(4)]
    truncated(files[1])
    files[2].unlink()
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (64, 48)).save(clear)
    done: list[tuple[int, int]] = []
    found = find_undecodable(
        dataset("train", *map(sample, files), sample(clear)),
        threads=threads,
        on_progress=lambda *each: done.append(each),
    )
    assert list(found) == [1, 2, 4]
    assert found[1].startswith("the image is truncated or damaged (")
    assert found[2] == "there is no such image"
    assert found[4].startswith("every pixel is transparent")
    assert done == [(number, 5) for number in range(1, 6)]


def test_of_two_images_of_one_name_only_the_damaged_one_is_left_out(tmp_path: Path):
    files = [write_noise(tmp_path / folder / "a.png", number) for number, folder in enumerate(("good", "torn"))]
    truncated(files[1])
    whole = dataset("train", *(sample(file, name="a.png") for file in files))
    left = leave_out(whole, find_undecodable(whole))
    assert [each.image for each in left] == files[:1]
    assert [problem.where for problem in left.problems] == [str(files[1])]


def test_what_is_left_out_joins_the_problems():
    before = Problem("a.txt", "this", "that")
    files = [Path("/nowhere/a.jpg"), Path("/nowhere/b.jpg")]
    pixels = np.zeros((3, 48, 64), np.uint8)
    whole = dataset("train", *map(sample, files), sample(pixels, name="drawn"), problems=(before,))
    assert leave_out(whole, {}).problems == (before,)
    left = leave_out(whole, {1: "torn", 2: "gray"})
    assert [each.name for each in left] == ["a.jpg"]
    assert left.problems == (
        before,
        Problem("/nowhere/b.jpg", "torn", "image left out"),
        Problem("drawn", "gray", "image left out"),
    )
    assert len(whole) == 3
    with pytest.raises(DatasetError, match="train: there is no image that can be used") as caught:
        leave_out(whole, {0: "torn", 1: "torn", 2: "gray"})
    assert len(caught.value.problems) == 4


def test_images_in_two_splits_are_found_by_path_and_by_content(tmp_path: Path):
    files = [write_noise(tmp_path / "train" / f"{number}.png", number, compress_level=0) for number in range(3)]
    assert len({file.stat().st_size for file in files}) == 1  # told apart by their content alone
    copy = tmp_path / "val" / "renamed.png"
    copy.parent.mkdir()
    copy.write_bytes(files[2].read_bytes())
    other = write_noise(tmp_path / "val" / "0.png", 99, compress_level=0)
    train, val = dataset("train", *map(sample, files)), dataset("val", *map(sample, (other, copy, files[0])))
    shared = find_shared_images(train, val)
    assert [(one.image, two.image) for one, two in shared] == [(files[2], copy), (files[0], files[0])]
    assert find_shared_images(dataset("train", sample(files[1])), val) == []


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train = [write_noise(tmp_path / f"{number}.png", number, compress_level=0) for number in (0, 1)]
    train[1].write_bytes(train[1].read_bytes() + b"a byte too many")
    val = write_noise(tmp_path / "val.png", 7, compress_level=0)
    assert train[0].stat().st_size == val.stat().st_size != train[1].stat().st_size
    opened = []
    open_path = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *rest: opened.append(path) or open_path(path, *rest))
    assert find_shared_images(dataset("train", *map(sample, train)), dataset("val", sample(val))) == []
    assert sorted(opened) == sorted([train[0], val])


def test_pixels_in_memory_are_compared_with_their_shape(tmp_path: Path):
    pixels = np.zeros((3, 48, 64), np.uint8)
    train = dataset("train", sample(pixels, name="a"))
    assert len(find_shared_images(train, dataset("val", sample(pixels.copy(), name="b")))) == 1
    assert find_shared_images(train, dataset("val", sample(pixels.reshape(3, 64, 48), name="b"))) == []
    assert find_shared_images(train, dataset("val", sample(pixels + 1, name="b"))) == []


def test_files_that_are_gone_are_the_same_by_their_path_only():
    one, two = Path("/nowhere/a.jpg"), Path("/nowhere/b.jpg")
    assert len(find_shared_images(dataset("train", sample(one)), dataset("val", sample(one), sample(two)))) == 1


def test_classes_nobody_has(tmp_path: Path):
    file = tmp_path / "a.jpg"
    assert find_unused_classes(dataset("train", sample(file, 1), sample(file, 1, 1))) == ("cat", "hen")
    assert find_unused_classes(dataset("train", sample(file, 0, 1, 2))) == ()
    assert find_unused_classes(dataset("train", sample(file, 0, 1), sample(file, 2, crowd=True))) == ("hen",)


def test_all_checks_together(tmp_path: Path):
    whole_set = Problem("data.yaml", "nc is 5, but there are 3 names", "names taken")
    good, torn = write_noise(tmp_path / "good.png", 1), truncated(tmp_path / "torn.png")
    progress: list[tuple[int, int]] = []
    found = check_dataset(
        {
            "train": dataset("set, train", sample(good, 0, 1, 2), problems=(whole_set,)),
            "val": dataset("set, val", sample(good, 0), sample(torn, 1), problems=(whole_set,)),
        },
        on_progress=lambda *each: progress.append(each),
    )
    first, second, *others = found
    assert first == whole_set
    assert (second.where, second.done) == (str(torn), "image left out")
    assert others == [
        Problem("set, val", "1 image of this split are in 'train' too: 'good.png'", "kept"),
        Problem("set, val", "no image has an object of 'hen'", "kept"),
    ]
    assert progress == [(1, 3), (2, 3), (3, 3)]
