"""Which images are in a step, and how they were changed, is a function of the seed and the place in the stream."""

import os
import re
import signal
import time
from dataclasses import replace
from itertools import islice
from math import sqrt

import numpy as np
import pytest
import torch
from PIL import Image

from multibox.data.augment import Augmentation, Augmented, normalized_boxes, render, sample_params
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.training.loading import Read, collate, image_weights, make_loader


@pytest.fixture(scope="module")
def scenes():
    return synthetic_scenes(10, seed=1, height=72, width=80)


@pytest.fixture
def load(scenes, small_config):
    """The batches of a run, the scenes' where nothing else is said."""

    def batches(dataset=scenes, *, batch_size=4, first_step=0, steps=5, seed=0, workers=0, **values):
        loader = make_loader(
            dataset,
            small_config,
            Augmentation(),
            batch_size=batch_size,
            first_step=first_step,
            steps=steps,
            seed=seed,
            workers=workers,
            **values,
        )
        return list(loader) if steps is not None else loader

    return batches


def assert_same(one, other):
    assert one.names == other.names
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.labels, other.labels)


def names(batches):
    return [name for batch in batches for name in batch.names]


def test_a_batch_is_what_a_step_learns_from(load, scenes):
    batch = load(steps=1)[0]
    assert batch.inputs.shape == (4, 3, 64, 64) and batch.inputs.dtype == torch.uint8
    assert batch.boxes.shape == (4, batch.labels.shape[1], 4) and batch.boxes.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert batch.boxes.min() >= 0 and batch.boxes.max() <= 1
    assert set(batch.names) <= {sample.name for sample in scenes}


def test_a_place_in_the_stream_has_its_own_random_changes(load, scenes, small_config):
    by_name = {sample.name: sample for sample in scenes}
    for step, batch in enumerate(load(seed=3)):
        for row, name in enumerate(batch.names):
            sample = by_name[name]
            params = sample_params(np.random.default_rng((3, 4 * step + row)), normalized_boxes(sample), Augmentation())
            image, boxes, labels = render(sample, params, height=64, width=64, margin=small_config.mean)
            np.testing.assert_array_equal(batch.inputs[row], image)
            np.testing.assert_array_equal(batch.boxes[row, : len(boxes)], boxes)
            np.testing.assert_array_equal(batch.labels[row, : len(boxes)], labels)
            assert (batch.labels[row, len(boxes) :] == -1).all()


def test_workers_change_nothing(load):
    for alone, by_worker in zip(load(), load(workers=1), strict=True):
        assert_same(alone, by_worker)


def test_a_run_that_is_taken_up_again_goes_on_where_it_was(load):
    whole = load(steps=8)
    for first_step in (1, 3, 7):
        for expected, batch in zip(whole[first_step:], load(first_step=first_step, steps=8), strict=True):
            assert_same(expected, batch)
    assert load(first_step=8, steps=8) == []


def test_the_stream_is_the_same_in_other_batches(load):
    fours, sixes = load(batch_size=4, steps=6), load(batch_size=6, steps=4)
    assert names(fours) == names(sixes)
    assert torch.equal(torch.cat([batch.inputs for batch in fours]), torch.cat([batch.inputs for batch in sixes]))


@pytest.mark.parametrize("batch_size", [3, 4, 10, 16])
def test_each_epoch_sees_every_image_once(load, scenes, batch_size):
    stream = names(load(batch_size=batch_size, steps=80 // batch_size))
    every = sorted(sample.name for sample in scenes)
    epochs = [stream[start : start + 10] for start in range(0, len(stream) - 9, 10)]
    assert len(epochs) >= 7
    assert all(sorted(epoch) == every for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # each in an order of its own


def test_a_set_that_is_smaller_than_a_batch(load, scenes):
    few = Dataset("few", scenes.class_names, scenes.samples[:3])
    batch, other = load(few, batch_size=8, steps=2)
    assert len(batch.names) == 8
    assert sorted(batch.names[:3]) == sorted(batch.names[3:6]) == [sample.name for sample in few]
    same = [row for row, name in enumerate(batch.names) if name == batch.names[0]]
    assert len({batch.inputs[row].numpy().tobytes() for row in same}) == len(same)  # but never changed the same way
    assert not torch.equal(batch.inputs, other.inputs)


def test_another_seed_is_another_order_and_other_changes(load):
    one, other = load(seed=0, steps=3), load(seed=1, steps=3)
    assert names(one) != names(other)
    first = {name: image for batch in one for name, image in zip(batch.names, batch.inputs, strict=True)}
    shared = [
        torch.equal(first[name], image)
        for batch in other
        for name, image in zip(batch.names, batch.inputs, strict=True)
        if name in first
    ]
    assert shared and not any(shared)


def test_a_stream_without_end(load):
    assert_same(list(islice(load(steps=None), 30))[-1], load(steps=30, first_step=29)[0])


def augmented(*labels):
    count = len(labels)
    boxes = np.tile(np.array([0.1, 0.2, 0.3, 0.4], np.float32), (count, 1)) + np.arange(count)[:, None] / 10
    return Augmented(np.full((3, 5, 6), count, np.uint8), boxes.astype(np.float32), np.array(labels, np.int64))


def test_images_with_fewer_objects_are_padded():
    batch = collate([Read("none", augmented()), Read("two", augmented(0, 5)), Read("one", augmented(3))])
    assert batch.names == ("none", "two", "one")
    assert batch.labels.shape == (3, 8)  # to a multiple of eight, so that shapes are few
    assert batch.labels[:, :2].tolist() == [[-1, -1], [0, 5], [3, -1]]
    assert (batch.labels[:, 2:] == -1).all()
    np.testing.assert_allclose(batch.boxes[1, :2], [[0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5]], atol=1e-6)
    assert (batch.boxes[0] == 0).all() and (batch.boxes[2, 1] == 0).all() and (batch.boxes[1, 2:] == 0).all()
    assert batch.inputs[:, 0, 0, 0].tolist() == [0, 2, 1]


def test_a_batch_without_objects():
    batch = collate([Read("a", augmented()), Read("b", augmented())])
    assert batch.boxes.shape == (2, 8, 4) and (batch.labels == -1).all()


@pytest.fixture
def files(tmp_path, scenes):
    """The scenes as a data set of files."""
    samples = []
    for sample in scenes:
        path = tmp_path / f"{sample.name}.png"
        Image.fromarray(sample.image.transpose(1, 2, 0)).save(path)
        samples.append(replace(sample, image=path))
    return Dataset("files", scenes.class_names, samples)


def test_files_are_read_as_pixels_are(load, files):
    for in_memory, from_file in zip(load(), load(files), strict=True):
        assert_same(in_memory, from_file)


@pytest.mark.parametrize("workers", [0, 1])
def test_another_image_takes_the_place_of_one_that_cannot_be_read(load, files, workers):
    whole = load(files)
    paths = [files[index].image for index in (4, 7)]
    paths[0].write_bytes(paths[0].read_bytes()[:300])
    paths[1].unlink()
    batches = load(files, workers=workers)
    complaints = {complaint for batch in batches for complaint in batch.unreadable}
    damaged, missing = sorted(complaints, key=len, reverse=True)
    assert re.fullmatch(rf"{paths[0]}: the image is truncated or damaged .*\)", damaged)
    assert missing == f"{paths[1]}: there is no such image"
    gone = {files[4].name, files[7].name}
    for batch, expected in zip(batches, whole, strict=True):
        assert not gone & set(batch.names)
        for row, name in enumerate(expected.names):
            if name not in gone:  # the others are as they would be
                assert batch.names[row] == name
                assert torch.equal(batch.inputs[row], expected.inputs[row])
    again = load(files, first_step=2, steps=5)
    for one, other in zip(again, batches[2:], strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("workers", [0, 1])
def test_where_no_image_can_be_read_it_is_said_in_one_line(load, files, workers):
    for sample in files:
        sample.image.unlink()
    with pytest.raises(FileNotFoundError, match=r"^.*\.png: there is no such image$"):
        load(files, workers=workers)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes, for which a reader waits")
def test_an_interrupt_while_a_reader_is_waited_for(load, files):
    """It is what arrives, and nothing is said of the reader that was ended."""
    for sample in files:
        sample.image.unlink()
        os.mkfifo(sample.image)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(files, workers=1)
        time.sleep(0.5)  # torch's own handler would raise its complaint here
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("size", "batch_size"), [(2, 4), (3, 7), (3, 3)])
def test_processes_share_each_batch(load, size, batch_size):
    """Whatever is left over by the division; also where the set is smaller than the number of processes."""
    few = Dataset("few", CLASS_NAMES, synthetic_scenes(2, seed=1, height=72, width=80).samples)
    whole = load(few, batch_size=batch_size, steps=3)
    shares = [load(few, batch_size=batch_size, steps=3, rank=rank, world_size=size) for rank in range(size)]
    for step, batch in enumerate(whole):
        for rank in range(size):
            share = shares[rank][step]
            assert share.names == batch.names[rank::size]
            assert torch.equal(share.inputs, batch.inputs[rank::size])


def test_images_with_rare_classes_come_more_often(load):
    """Of 16 images 15 have class 0 alone, one has class 1: repeat factors sqrt(16 / 15) and sqrt(16 / 1)."""
    image = np.zeros((3, 8, 8), np.uint8)
    box = [[1, 1, 7, 7]]
    samples = [Sample(str(i), image, 8, 8, GroundTruth(box, [int(i == 15)]), i) for i in range(16)]
    dataset = Dataset("rare", CLASS_NAMES, samples)
    np.testing.assert_allclose(image_weights(dataset), [sqrt(16 / 15)] * 15 + [4.0])
    shown = names(load(dataset, batch_size=16, steps=50, balance_classes=True))
    expected = 4 / (4 + 15 * sqrt(16 / 15))
    assert shown.count("15") / len(shown) == pytest.approx(expected, rel=0.05)
    assert {shown[epoch * 16 : epoch * 16 + 16].count("15") for epoch in range(50)} <= {3, 4}  # of 3.3
    assert set(shown) == {str(i) for i in range(16)}
    epochs = (shown[start : start + 16] for start in range(0, len(shown), 16))
    places = [[place for place, name in enumerate(epoch) if name == "15"] for epoch in epochs]
    in_a_row = [at[-1] - at[0] == len(at) - 1 for at in places]
    assert sum(in_a_row) < 15  # in random order, one epoch of twenty or so


def test_images_without_objects_weigh_like_those_of_the_commonest_class():
    image = np.zeros((3, 8, 8), np.uint8)
    truths = [GroundTruth([], []), GroundTruth([[1, 1, 7, 7]], [0], crowd=[True])]
    samples = [Sample(str(i), image, 8, 8, truth, i) for i, truth in enumerate(truths)]
    np.testing.assert_array_equal(image_weights(Dataset("empty", CLASS_NAMES, samples)), [1, 1])


def test_images_of_many_sizes_and_without_objects(load):
    rng = np.random.default_rng(0)
    samples = [
        Sample(f"{height}x{width}", rng.integers(0, 256, (3, height, width), np.uint8), height, width, truth, 0)
        for (height, width), truth in {
            (1, 1): GroundTruth([], []),
            (3, 500): GroundTruth([[0, 0, 499.5, 3]], [0]),
            (300, 20): GroundTruth([[1, 1, 9, 9]], [2], crowd=[True]),
        }.items()
    ]
    for batch in load(Dataset("odd", ("a", "b", "c"), samples), batch_size=3, steps=10):
        assert batch.inputs.shape == (3, 3, 64, 64)
        for name, labels in zip(batch.names, batch.labels.tolist(), strict=True):
            assert set(labels) <= ({0, -1} if name == "3x500" else {-1})
