"""The benchmarks' peer trains our network by torchvision's rules, which agree with ours where they should."""

import numpy as np
import pytest
import torch

from benchmarks import torchvision_peer as peer
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.detector import Detector
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import multibox_loss
from multibox.ssd.matching import make_targets
from tests.tolerances import assert_close

CLASSES = ("cell", "platelet")
# far apart: no two objects have the same best default box, the only case in which the two matchings differ
BOXES = [[[20.0, 30, 90, 120], [150, 140, 240, 230]], [[100, 100, 140, 150]], [[5, 5, 250, 250], [30, 180, 50, 200]]]
LABELS = [[0, 1], [1], [0, 1]]


@pytest.fixture
def detector() -> Detector:
    return Detector.create("ssd256-tiny", CLASSES, seed=0)


def test_the_loss_and_its_gradients_are_ours(detector):
    """In double precision: gradients are long sums, which differ in the last bits between processors."""
    images = torch.randint(0, 256, (3, 3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    network = detector.network.double().train()
    boxes, labels = torch.zeros(3, 2, 4, dtype=torch.float64), torch.full((3, 2), -1)
    for row, (corners, names) in enumerate(zip(BOXES, LABELS, strict=True)):
        boxes[row, : len(corners)] = torch.tensor(corners) / 256
        labels[row, : len(names)] = torch.tensor(names)
    coder = BoxCoder(detector.config.center_variance, detector.config.size_variance)
    ours = multibox_loss(network(images), make_targets(boxes, labels, network.default_boxes, coder))
    ours.total.backward()
    gradients = {name: value.grad.clone() for name, value in network.named_parameters()}
    network.zero_grad()

    targets = [
        {"boxes": torch.tensor(corners, dtype=torch.float64), "labels": torch.tensor(names) + 1}
        for corners, names in zip(BOXES, LABELS, strict=True)
    ]
    theirs = peer.make_model(detector).double().train()([image.double() / 255 for image in images], targets)
    sum(theirs.values()).backward()

    assert_close([theirs["bbox_regression"], theirs["classification"]], [ours.localization, ours.confidence])
    for name, value in network.named_parameters():
        # what is left of a sum whose terms cancel is as exact as its terms
        noise = 1e-9 * gradients[name].abs().max().item()
        torch.testing.assert_close(value.grad, gradients[name], rtol=0, atol=noise, msg=lambda m, n=name: f"{n}: {m}")


def test_an_image_of_another_size_is_warped_as_it_is_validated(detector):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 240, 320), dtype=np.uint8)
    model = peer.make_model(detector)
    images, targets = model.transform(
        [torch.from_numpy(pixels) / 255], [{"boxes": torch.tensor([[80.0, 60, 160, 120]]), "labels": torch.tensor([1])}]
    )
    prepared = peer.trained(detector).prepare(pixels)
    np.testing.assert_allclose(images.tensors.numpy(), prepared, atol=0.01)
    assert targets[0]["boxes"].tolist() == [[64, 64, 128, 128]]


def test_it_trains_the_detector_in_place_with_the_rise_of_the_first_epoch(detector):
    rng = np.random.default_rng(0)
    truth = GroundTruth([[10, 10, 60, 60], [80, 40, 150, 110]], [0, 1])
    samples = [
        Sample(f"{number}", rng.integers(0, 256, (3, 120, 160), dtype=np.uint8), 120, 160, truth, number)
        for number in range(9)
    ]
    before = detector.network.logits["stage3"].pointwise.weight.detach().clone()
    steps = list(peer.train(detector, Dataset("drawn", CLASSES, samples), learning_rate=0.01, epochs=2))
    assert [step.epoch for step in steps] == [0.5, 1, 1.5, 2]  # nine images are two whole batches of four
    assert [step.learning_rate for step in steps] == pytest.approx([1e-5, 0.01, 0.01, 0.01])
    assert not torch.equal(before, peer.trained(detector).network.logits["stage3"].pointwise.weight)


def test_the_transforms_give_pixels_boxes_and_labels_that_belong_together():
    torch.manual_seed(0)
    truth = GroundTruth([[10, 10, 60, 60], [80, 40, 150, 110]], [0, 1], crowd=[False, True])
    image = np.full((3, 120, 160), 200, np.uint8)
    loader = peer.make_loader(Dataset("one", CLASSES, [Sample("0", image, 120, 160, truth, 0)] * 40))
    for images, targets in loader:
        for image, target in zip(images, targets, strict=True):
            assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
            assert type(target["boxes"]) is torch.Tensor
            assert target["labels"].tolist() == [1]  # the crowd is left out, and the background is 0
            assert (target["boxes"] >= 0).all()
            assert (target["boxes"][:, 2:] <= torch.tensor([image.shape[2], image.shape[1]])).all()
