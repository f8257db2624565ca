"""The bug museum: what well-known ports of SSD do differently from the authors' code.

Every test contains the package's rule and the port's, in a few lines of our own, and shows that its check passes with
the first and fails with the second. `docs/paper.md` lists the ports and their files.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multibox.boxes import box_iou, corner_to_center
from multibox.config import Postprocess
from multibox.data import Dataset, GroundTruth, Sample, read_dataset
from multibox.data.augment import (
    INTERPOLATIONS,
    MIN_OVERLAPS,
    Augmentation,
    AugmentParams,
    Colors,
    change_colors,
    crop_boxes,
    normalized_boxes,
    random_crops,
    sample_crop,
    sample_params,
)
from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.postprocess import postprocess
from multibox.presets import paper_box_sizes, preset
from multibox.ssd.loss import multibox_loss
from multibox.ssd.matching import UNMATCHED, Targets, match
from multibox.ssd.network import SSD, L2Norm, Predictions
from multibox.training.distributed import ProcessGroup
from multibox.training.loading import Batch, make_loader
from multibox.training.optimizer import make_optimizer
from multibox.training.recipes import RECIPES, TrainConfig
from multibox.training.trainer import Trainer
from multibox.weights.backbone_names import decimated_vgg16
from tests.data.folders import voc_object, voc_xml, write_voc_set

PAPER = RECIPES["paper"]
SSD300, SSD512 = preset("ssd300-vgg16"), preset("ssd512-vgg16")
SMALL = preset("ssd256-tiny", height=64, width=64)


def show(check: Callable[[Any], None], *, ours: Any, port: Any) -> None:
    """Asserts that the check passes with our rule and fails with the port's rule."""
    check(ours)
    with pytest.raises(AssertionError):
        check(port)


def test_the_list_in_the_documents_is_that_of_the_tests():
    text = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
    (museum,) = re.findall(r"^## The bug museum$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    tests = [name for name, value in globals().items() if name.startswith("test_") and inspect.isfunction(value)]
    listed = re.findall(r"`(test_\w+)`", museum)
    assert listed == [name for name in tests if name != "test_the_list_in_the_documents_is_that_of_the_tests"]


# Default boxes


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(slice(4), id="ssd.pytorch, lufficc, NVIDIA, sgrvinod: all four numbers"),
        pytest.param(slice(2, 4), id="torchvision: width and height"),
    ],
)
def test_default_boxes_are_not_clamped(columns: slice):
    ours = make_default_boxes(SSD300)
    port = ours.copy()
    port[:, columns] = port[:, columns].clip(0, 1)

    def check(table: np.ndarray) -> None:
        sums = table.sum(axis=0, dtype=np.float64)
        np.testing.assert_allclose(sums, [4443.9467, 4443.9467, 1510.4293, 1510.4293], atol=1e-3)

    show(check, ours=ours, port=port)


def ssd512_with_sizes(edges: list[float]) -> np.ndarray:
    """Returns the default boxes of SSD512, with each map's `max_size` equal to the next one's `min_size`."""
    rows = [
        replace(row, box_sizes=paper_box_sizes(*sizes, (2,) if len(row.box_sizes) == 4 else (2, 3)))
        for row, sizes in zip(SSD512.feature_maps, pairwise(edges), strict=True)
    ]
    return make_default_boxes(replace(SSD512, feature_maps=tuple(rows)))


def test_sizes_of_ssd512_are_cut_to_whole_pixels():
    """Most ports in PyTorch use 35.84 instead of 35, for example lufficc/SSD in `configs/vgg_ssd512_voc0712.yaml`."""
    decimal = [512 * percent / 100 for percent in (7, 15, 30, 45, 60, 75, 90, 105)]

    def check(table: np.ndarray) -> None:
        assert table[:, 2].sum(dtype=np.float64) == pytest.approx(3105.5545, abs=1e-3)

    show(check, ours=make_default_boxes(SSD512), port=ssd512_with_sizes(decimal))
    assert ssd512_with_sizes(decimal)[:, 2].sum(dtype=np.float64) == pytest.approx(3146.1417, abs=1e-3)


def test_the_first_size_of_ssd512_is_7_percent_of_the_side():
    """gluon-cv `model_zoo/ssd` uses 51.2, a tenth of the side, as in SSD300."""
    tenth = [51.2, *(512 * percent / 100 for percent in (15, 30, 45, 60, 75, 90, 105))]

    def check(table: np.ndarray) -> None:
        assert table[0, 2] * 512 == pytest.approx(35)

    show(check, ours=make_default_boxes(SSD512), port=ssd512_with_sizes(tenth))


def test_centers_are_whole_steps_apart():
    """sgrvinod `model.py` spreads the centers evenly over the image, as the paper's text says."""
    cells = [(row.rows, len(row.box_sizes)) for row in SSD300.feature_maps]
    port = make_default_boxes(SSD300)
    port[:, 0] = np.concatenate([np.tile(np.repeat((np.arange(n) + 0.5) / n, boxes), n) for n, boxes in cells])

    def check(table: np.ndarray) -> None:
        assert table[:, 0].max() == pytest.approx(9.5 * 32 / 300)
        assert table[:, 0].sum(dtype=np.float64) == pytest.approx(4443.9467, abs=1e-3)

    show(check, ours=make_default_boxes(SSD300), port=port)


# Matching


def match_one(boxes: Tensor, default_boxes: Tensor) -> list[int]:
    return match(boxes[None], torch.ones(1, len(boxes), dtype=torch.bool), default_boxes)[0].tolist()


def test_objects_with_the_same_best_default_box_both_get_one():
    """ssd.pytorch `layers/box_utils.py` and its successors force each object's best default box; the last one wins."""
    default_boxes = torch.tensor([[0.0, 0, 10, 10], [6, 0, 16, 10]])
    objects = torch.tensor([[0.0, 0, 10, 9], [1, 0, 9, 10]])

    def forced(boxes: Tensor, default_boxes: Tensor) -> list[int]:
        overlaps = box_iou(boxes.double().numpy(), default_boxes.double().numpy())
        matched = np.where(overlaps.max(axis=0) >= 0.5, overlaps.argmax(axis=0), UNMATCHED)
        for number, best in enumerate(overlaps.argmax(axis=1)):
            matched[best] = number
        return matched.tolist()

    def check(rule: Callable[[Tensor, Tensor], list[int]]) -> None:
        assert sorted(rule(objects, default_boxes)) == [0, 1]

    show(check, ours=match_one, port=forced)


def test_an_overlap_of_just_a_half_is_a_match():
    """MLPerf and NVIDIA `ssd/utils.py` require more than a half, as the paper's text does."""
    default_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    objects = torch.tensor([[0.0, 0, 10, 10]])

    def above(boxes: Tensor, default_boxes: Tensor) -> list[int]:
        (overlaps,) = box_iou(boxes.double().numpy(), default_boxes.double().numpy())
        overlaps[overlaps.argmax()] = 2
        return np.where(overlaps > 0.5, 0, UNMATCHED).tolist()

    def check(rule: Callable[[Tensor, Tensor], list[int]]) -> None:
        assert rule(objects, default_boxes) == [0, 0]

    show(check, ours=match_one, port=above)


# What is learned from


def gray_sample(name: str, truth: GroundTruth) -> Sample:
    return Sample(name, np.full((3, 40, 40), 128, np.uint8), 40, 40, truth, 0)


def test_difficult_objects_are_learned():
    """ssd.pytorch `data/voc0712.py` leaves difficult objects out (`keep_difficult=False`)."""
    sample = gray_sample("two", GroundTruth([[0, 0, 20, 20], [5, 5, 30, 30]], [0, 1], difficult=[False, True]))

    def without_difficult(sample: Sample) -> np.ndarray:
        return normalized_boxes(replace(sample, truth=sample.truth[~sample.truth.difficult]))

    def check(rule: Callable[[Sample], np.ndarray]) -> None:
        np.testing.assert_allclose(rule(sample), [[0, 0, 0.5, 0.5], [0.125, 0.125, 0.75, 0.75]])

    show(check, ours=normalized_boxes, port=without_difficult)


def batches_of(dataset: Dataset, *, batch_size: int) -> Iterator[Batch]:
    return make_loader(
        dataset, SMALL, Augmentation(), batch_size=batch_size, first_step=0, steps=None, seed=0, workers=0
    )


def test_images_without_objects_are_seen():
    """NVIDIA `ssd/coco_pipeline.py` (`skip_empty`) and mmdetection (`filter_empty_gt`) drop images without objects."""
    one, none = GroundTruth([[0, 0, 20, 20]], [0]), GroundTruth([], [])
    ours = Dataset("three", ("cat",), [gray_sample("a", one), gray_sample("empty", none), gray_sample("b", one)])
    port = replace(ours, samples=[sample for sample in ours if len(sample.truth)])

    def check(dataset: Dataset) -> None:
        assert sorted(next(batches_of(dataset, batch_size=3)).names) == ["a", "b", "empty"]

    show(check, ours=ours, port=port)


# Augmentation


def test_color_channels_are_never_shuffled():
    """ssd.pytorch `utils/augmentations.py`, lufficc/SSD and torchvision's RandomPhotometricDistort shuffle them."""
    red = np.tile(np.array([200, 60, 40], np.uint8)[:, None, None], (1, 2, 2))

    def ours(rng: np.random.Generator) -> np.ndarray:
        return change_colors(red, sample_params(rng, np.zeros((0, 4)), Augmentation()).colors)

    def shuffled(rng: np.random.Generator) -> np.ndarray:
        image = ours(rng)
        return image[rng.permutation(3)] if rng.random() < 0.5 else image

    def check(rule: Callable[[np.random.Generator], np.ndarray]) -> None:
        rng = np.random.default_rng(1)
        assert all(rule(rng)[:, 0, 0].argmax() == 0 for _ in range(100))

    show(check, ours=ours, port=shuffled)


def draws_of(augmentation: Augmentation) -> list[AugmentParams]:
    rng = np.random.default_rng(2)
    return [sample_params(rng, np.array([[0.2, 0.2, 0.6, 0.7]]), augmentation) for _ in range(100)]


def test_one_of_five_interpolations_is_drawn():
    """ssd.pytorch `utils/augmentations.py` and lufficc/SSD `ssd/data/transforms/transforms.py` always use bilinear."""

    def check(augmentation: Augmentation) -> None:
        assert {drawn.interpolation for drawn in draws_of(augmentation)} == set(INTERPOLATIONS)

    show(check, ours=PAPER.augmentation, port=replace(PAPER.augmentation, interpolations=("bilinear",)))


def test_images_are_zoomed_out():
    """NVIDIA `ssd/coco_pipeline.py` and MLPerf `ssd/utils.py` never expand an image."""

    def check(augmentation: Augmentation) -> None:
        assert max((drawn.window[2:] - drawn.window[:2]).max() for drawn in draws_of(augmentation)) > 2

    show(check, ours=PAPER.augmentation, port=replace(PAPER.augmentation, expand_probability=0.0))


Crop = Callable[[np.random.Generator, np.ndarray], tuple[int, np.ndarray]]
WHOLE = np.array([0.0, 0.0, 1.0, 1.0])


def some_object(overlaps: np.ndarray, least: float) -> np.ndarray:
    return overlaps.max(axis=1) >= least


def port_crop(
    *,
    options: tuple[int, ...] = tuple(range(7)),
    accepts: Callable[[np.ndarray, float], np.ndarray] = some_object,
    tries: int = 50,
) -> Crop:
    """Crops as the ports do: draw an option and try it until an accepted crop keeps an object, else draw another.

    Options are numbered like our samplers. `accepts` takes the overlaps, one row for each crop.
    """

    def rule(rng: np.random.Generator, boxes: np.ndarray) -> tuple[int, np.ndarray]:
        while True:
            sampler = options[rng.integers(len(options))]
            if sampler == 0:
                return 0, WHOLE
            crops = random_crops(rng, tries)
            accepted = accepts(box_iou(crops, boxes), (0.0, *MIN_OVERLAPS, 0.0)[sampler]) & (kept(crops, boxes) > 0)
            if accepted.any():
                return sampler, crops[accepted.argmax()]

    return rule


def kept(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns how many objects have their center in each crop."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((center > crops[:, None, :2]) & (center < crops[:, None, 2:])).all(axis=2).sum(axis=1)


def crops_of(rule: Crop, boxes: list[list[float]], count: int) -> list[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [rule(rng, np.array(boxes)) for _ in range(count)]


def test_a_crop_overlaps_an_object_as_its_sampler_asks():
    """ssd.pytorch `utils/augmentations.py` and qfgaohao `vision/transforms/transforms.py` reject no crop."""

    def vacuous(overlaps: np.ndarray, least: float) -> np.ndarray:
        return ~((overlaps.min(axis=1) < least) & (np.inf < overlaps.max(axis=1)))

    def check(rule: Crop) -> None:
        boxes = [[0.1, 0.2, 0.5, 0.7], [0.4, 0.1, 0.9, 0.6]]
        for sampler, crop in crops_of(rule, boxes, 60):
            if 1 <= sampler <= 5:
                assert box_iou(crop[None], np.array(boxes)).max() >= MIN_OVERLAPS[sampler - 1]

    show(check, ours=sample_crop, port=port_crop(accepts=vacuous))


def test_an_overlap_with_one_object_is_enough_for_a_crop():
    """NVIDIA `ssd/coco_pipeline.py`, MLPerf `ssd/utils.py`, mmdetection and gluon-cv require all objects to overlap it.

    Two objects in opposite corners can never both overlap a crop by a tenth.
    """

    def every_object(overlaps: np.ndarray, least: float) -> np.ndarray:
        return overlaps.min(axis=1) >= least

    def check(rule: Crop) -> None:
        boxes = [[0.0, 0.0, 0.25, 0.25], [0.75, 0.75, 1.0, 1.0]]
        assert any(1 <= sampler <= 5 for sampler, _ in crops_of(rule, boxes, 40))

    show(check, ours=sample_crop, port=port_crop(accepts=every_object))


def test_a_sampler_tries_fifty_times():
    """NVIDIA (`num_attempts=1`) and MLPerf (`--num-cropping-iterations 1`) try once, then take the whole image."""

    def check(rule: Crop) -> None:
        samplers = [sampler for sampler, _ in crops_of(rule, [[0.3, 0.3, 0.7, 0.7]], 300)]
        assert samplers.count(0) / 300 < 0.28
        assert samplers.count(3) / 300 > 0.1  # an overlap of a half

    show(check, ours=sample_crop, port=port_crop(tries=1))


def test_there_is_a_sampler_for_an_overlap_of_a_half():
    """ssd.pytorch `utils/augmentations.py` and lufficc/SSD `ssd/data/transforms/transforms.py` leave it out."""

    def check(rule: Crop) -> None:
        assert {sampler for sampler, _ in crops_of(rule, [[0.0, 0.0, 1.0, 1.0]], 150)} == set(range(7))

    show(check, ours=sample_crop, port=port_crop(options=(0, 1, 2, 4, 5, 6)))


def test_a_crop_may_keep_no_object():
    """ssd.pytorch, lufficc/SSD, torchvision (RandomIoUCrop), mmdetection and gluon-cv retry until an object is kept."""

    def check(rule: Crop) -> None:
        boxes = [[0.05, 0.05, 0.1, 0.1]]
        crops = np.stack([crop for _, crop in crops_of(rule, boxes, 100)])
        assert np.mean(kept(crops, np.array(boxes)) == 0) > 0.1

    show(check, ours=sample_crop, port=port_crop())


def test_objects_are_clipped_to_the_crop():
    """ssd_keras did not clip them (its issue 71), and trained on boxes that extend beyond the image."""
    boxes = np.array([[0.1, 0.2, 0.8, 0.9]])
    unchanged = Colors(brightness=0.0, contrast=1.0, saturation=1.0, hue=0.0, contrast_last=False)
    drawn = AugmentParams(unchanged, 1.0, 1, np.array([0.3, 0.3, 0.7, 0.8]), False, "bilinear")

    def ours(boxes: np.ndarray, drawn: AugmentParams) -> np.ndarray:
        return crop_boxes(boxes, drawn)[0]

    def unclipped(boxes: np.ndarray, drawn: AugmentParams) -> np.ndarray:
        low, high = drawn.window[:2], drawn.window[2:]
        return (boxes - np.tile(low, 2)) / np.tile(high - low, 2)

    def check(rule: Callable[[np.ndarray, AugmentParams], np.ndarray]) -> None:
        np.testing.assert_allclose(rule(boxes, drawn), [[0, 0, 1, 1]], atol=1e-6)

    show(check, ours=ours, port=unclipped)


# The network


@pytest.mark.parametrize(
    "port",
    [
        pytest.param(nn.BatchNorm2d(8), id="qfgaohao vision/ssd/vgg_ssd.py: BatchNorm2d"),
        pytest.param(nn.Identity(), id="MLPerf ssd/ssd300.py: nothing"),
    ],
)
def test_conv4_3_goes_through_l2_norm(port: nn.Module):
    """The features of each cell have length 20, however large they were."""
    features = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50]).view(
        2, 1, 1, 1
    )

    def check(layer: nn.Module) -> None:
        torch.testing.assert_close(layer(features).norm(dim=1), torch.full((2, 3, 3), 20.0))

    show(check, ours=L2Norm(8, scale=20.0), port=port)


@pytest.mark.parametrize(
    "port",
    [
        pytest.param(nn.init.xavier_uniform_, id="ssd.pytorch, lufficc, NVIDIA, torchvision: Glorot's"),
        pytest.param(nn.init.kaiming_normal_, id="ssd_keras: he_normal"),
    ],
)
def test_new_layers_start_within_caffes_xavier(port: Callable[[Tensor], Tensor]):
    """They are uniform within sqrt(3 / fan-in)."""
    torch.manual_seed(0)
    ours = SSD(replace(SMALL, extras_batch_norm=False), num_classes=2).extras["conv6_1"].weight.detach()
    assert ours.shape == (64, 128, 1, 1)

    def check(weight: Tensor) -> None:
        assert 0.99 * (3 / 128) ** 0.5 < weight.abs().max() <= (3 / 128) ** 0.5

    show(check, ours=ours, port=port(torch.empty_like(ours)))


def test_conv6_and_conv7_answer_as_the_classifier_of_vgg16():
    """torchvision `ssd.py` draws both by Glorot's rule, even if VGG-16 has its weights from ImageNet."""
    generator = torch.Generator().manual_seed(0)
    channels, width = 8, 16
    fc6 = torch.randn(4 * width, channels, 1, 1, generator=generator)
    fc6 = fc6 + 0.3 * torch.randn(4 * width, channels, 7, 7, generator=generator)  # kernels that are mostly smooth
    fc7 = torch.randn(4 * width, 4 * width, generator=generator)
    state = {f"features.{place}.{part}": np.zeros(1) for place in range(30) for part in ("weight", "bias")} | {
        "classifier.0.weight": fc6.flatten(1).numpy(),
        "classifier.0.bias": np.zeros(4 * width, np.float32),
        "classifier.3.weight": fc7.numpy(),
        "classifier.3.bias": np.zeros(4 * width, np.float32),
    }
    start = {key: torch.from_numpy(tensor) for key, tensor in decimated_vgg16(state).items()}
    ours = [start["conv6.weight"], start["conv7.weight"]]
    torch.manual_seed(0)
    port = [nn.init.xavier_uniform_(torch.empty_like(weight)) for weight in ours]

    images = torch.randn(200, channels, 1, 1, generator=generator)
    hidden = F.conv2d(images.expand(-1, -1, 7, 7), fc6).relu()[..., 0, 0]
    classifier = hidden[:, ::4] @ fc7[::4, ::4].T  # every fourth channel of both

    def check(weights: list[Tensor]) -> None:
        conv6, conv7 = weights
        # pool5 keeps the map's size: the 7x7 cells of the classifier lie on 13x13 that a dilation of 6 reaches over
        answers = F.conv2d(F.conv2d(images.expand(-1, -1, 13, 13), conv6, dilation=6).relu(), conv7)[..., 0, 0]
        for pair in zip(answers.T, classifier.T, strict=True):
            assert torch.corrcoef(torch.stack(pair))[0, 1] > 0.8

    show(check, ours=ours, port=port)


IMAGENET_MEAN, IMAGENET_DEVIATION = (torch.tensor(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.mark.parametrize(
    "port",
    [
        pytest.param(
            lambda rgb: rgb - torch.tensor([123.0, 117, 104]) / 256, id="ssd.pytorch demo/live.py: mean / 256"
        ),
        pytest.param(lambda rgb: rgb / 255, id="NVIDIA ssd/coco_pipeline.py: / 255"),
        pytest.param(lambda rgb: (rgb / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION, id="gluon-cv: ImageNet's"),
    ],
)
def test_pixels_lose_their_mean_and_keep_their_scale(port: Callable[[Tensor], Tensor]):
    """The Caffe weights of VGG-16 expect pixels of about ±128."""
    network = SSD(replace(SMALL, mean=SSD300.mean, scale=SSD300.scale), num_classes=1).eval()
    seen: list[Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _, images: seen.append(images[0]))

    def ours(rgb: Tensor) -> Tensor:
        network(rgb[None, :, None, None].expand(1, 3, 64, 64))
        return seen[-1][0, :, 5, 7]

    def check(rule: Callable[[Tensor], Tensor]) -> None:
        torch.testing.assert_close(rule(torch.tensor([123.0, 217, 4])), torch.tensor([0.0, 100, -100]))

    show(check, ours=ours, port=port)


@pytest.mark.parametrize(
    ("classes", "port"),
    [
        pytest.param(80, 201, id="ssd.pytorch data/config.py: 201 for COCO"),
        pytest.param(80, 91, id="torchvision ssd.py: 91, ten of them unused"),
        pytest.param(3, 81, id="NVIDIA ssd/model.py: 81 whatever the data"),
    ],
)
def test_there_are_as_many_columns_as_classes_and_one(classes: int, port: int):
    """Each extra column takes probability from the others: an untrained network has the loss log(columns)."""
    with torch.device("meta"):
        logits = SSD(SMALL, num_classes=classes).eval()(torch.empty(1, 3, 64, 64)).logits

    def check(columns: int) -> None:
        loss = F.cross_entropy(torch.zeros(1, columns), torch.tensor([1]))
        assert loss.item() == pytest.approx(np.log(classes + 1), abs=1e-4)

    show(check, ours=logits.shape[-1], port=port)


def test_no_layer_is_frozen():
    """torchvision's `ssd300_vgg16` trains four of the five stages of VGG-16 by default."""

    def vgg16() -> SSD:
        with torch.device("meta"):
            return SSD(SSD300, num_classes=20)

    def frozen() -> SSD:
        network = vgg16()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith("backbone.conv1_"))
        return network

    def check(make: Callable[[], SSD]) -> None:
        groups = make_optimizer(network := make(), PAPER).param_groups
        trained = {id(parameter) for group in groups for parameter in group["params"] if parameter.requires_grad}
        assert trained == {id(parameter) for parameter in network.parameters()}

    show(check, ours=vgg16, port=frozen)


# The loss


Loss = Callable[[Predictions, Targets], Tensor]


def total(predictions: Predictions, targets: Targets) -> Tensor:
    return multibox_loss(predictions, targets).total


def test_without_a_match_the_loss_is_zero():
    """ssd.pytorch, lufficc/SSD and qfgaohao `multibox_loss.py` divide by the number of matches even if it is 0."""
    predictions = Predictions(torch.randn(2, 5, 4), torch.randn(2, 5, 3))
    targets = Targets(torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.long))

    def unguarded(predictions: Predictions, targets: Targets) -> Tensor:
        positive = targets.labels > 0
        distance = F.smooth_l1_loss(predictions.offsets[positive], targets.offsets[positive], reduction="sum")
        return distance / positive.sum()

    def check(rule: Loss) -> None:
        assert rule(predictions, targets).item() == 0

    show(check, ours=total, port=unguarded)


def test_the_loss_is_divided_by_the_matches_of_the_batch():
    """NVIDIA `ssd/model.py` divides the loss of each image by its own matches and takes the mean."""
    offsets, labels = torch.zeros(2, 4, 4), torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]])
    offsets[0, 0, 0] = 4.5  # smooth L1 4: the one match of image 0; the three of image 1 are perfect
    predictions, targets = Predictions(offsets, torch.zeros(2, 4, 2)), Targets(torch.zeros(2, 4, 4), labels)

    def ours(predictions: Predictions, targets: Targets) -> Tensor:
        return multibox_loss(predictions, targets).localization

    def by_image(predictions: Predictions, targets: Targets) -> Tensor:
        positive = targets.labels > 0
        distance = F.smooth_l1_loss(predictions.offsets, targets.offsets, reduction="none").sum(dim=2)
        return ((distance * positive).sum(dim=1) / positive.sum(dim=1)).mean()

    def check(rule: Loss) -> None:
        assert rule(predictions, targets).item() == pytest.approx(4 / 4)

    show(check, ours=ours, port=by_image)


def test_the_localization_loss_is_smooth_l1():
    """sgrvinod `model.py` calls it `smooth_l1`, but uses the L1 loss and the mean over the four numbers."""
    offsets, labels = torch.zeros(1, 4, 4), torch.tensor([[1, 0, 0, 0]])
    offsets[0, 0] = torch.tensor([2.0, -0.5, 0, 0])
    predictions, targets = Predictions(offsets, torch.zeros(1, 4, 2)), Targets(torch.zeros(1, 4, 4), labels)

    def ours(predictions: Predictions, targets: Targets) -> Tensor:
        return multibox_loss(predictions, targets).localization

    def mean_l1(predictions: Predictions, targets: Targets) -> Tensor:
        positive = targets.labels > 0
        return F.l1_loss(predictions.offsets[positive], targets.offsets[positive])

    def check(rule: Loss) -> None:
        assert rule(predictions, targets).item() == pytest.approx(1.5 + 0.125)

    show(check, ours=ours, port=mean_l1)


def test_negatives_are_ranked_with_each_boxs_own_largest_logit():
    """ssd.pytorch `layers/box_utils.py` uses the batch's: one certain box makes all other losses minus infinity."""
    logits = torch.tensor([[[0.0, 200], [0, -3], [0, -2], [0, -1], [0, 1], [0, 2]]])
    targets = Targets(torch.zeros(1, 6, 4), torch.tensor([[1, 0, 0, 0, 0, 0]]))

    def ours(logits: Tensor) -> list[int]:
        logits = logits.clone().requires_grad_()
        multibox_loss(Predictions(torch.zeros(1, 6, 4), logits), targets, negatives_per_positive=2.0).total.backward()
        assert logits.grad is not None
        return (logits.grad[0].abs().sum(dim=1) > 0).nonzero()[:, 0].tolist()

    def with_one_largest(logits: Tensor) -> list[int]:
        largest = logits.max()
        losses = (logits[0] - largest).exp().sum(dim=1).log() + largest - logits[0, :, 0]
        losses[0] = 0  # the match
        return losses.argsort(descending=True, stable=True)[:2].sort().values.tolist()

    def check(rule: Callable[[Tensor], list[int]]) -> None:
        assert rule(logits) == [4, 5]

    show(check, ours=ours, port=with_one_largest)


# The run


def new_run() -> Trainer:
    detector = Detector.create(SMALL, ("cat", "dog"), seed=0)
    return Trainer(detector, PAPER, TrainConfig(), precision="fp32", group=ProcessGroup(rank=0, size=1, device="cpu"))


def random_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[[0.1, 0.1, 0.6, 0.5]], [[0.3, 0.2, 0.9, 0.8]]])
    return Batch(images, boxes, torch.tensor([[0], [1]]), ("a", "b"))


def test_biases_learn_twice_as_fast_and_without_decay():
    """ssd.pytorch `train.py` and lufficc/SSD `ssd/solver/build.py` treat all parameters alike."""
    port = new_run()
    port._optimizer = torch.optim.SGD(
        [{"params": list(port.network.parameters()), "lr_factor": 1.0}],
        lr=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        fused=True,
    )

    def check(run: Trainer) -> None:
        with torch.no_grad():
            for parameter in run.network.parameters():
                parameter.add_(0.01)  # biases start at zero, where nothing decays
        before = {name: value.detach().clone() for name, value in run.network.named_parameters()}
        run.step(random_batch(1), learning_rate=1e-3)
        for name, value in run.network.named_parameters():
            step = 2 * value.grad if name.endswith(".bias") else value.grad + 5e-4 * before[name]
            torch.testing.assert_close(value.detach(), before[name] - 1e-3 * step, rtol=0, atol=1e-6)

    show(check, ours=new_run(), port=port)


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path):
    """ssd.pytorch `train.py` and qfgaohao `train_ssd.py` (its issue 163) load the weights but no momentum."""
    straight = new_run()
    for seed in range(3):
        if seed == 2:
            torch.save(straight.state_dict(), tmp_path / "last.pt")
            weights = {name: value.clone() for name, value in straight.network.state_dict().items()}
        straight.step(random_batch(seed), learning_rate=1e-3)

    def ours() -> Trainer:
        run = new_run()
        run.load_state_dict(torch.load(tmp_path / "last.pt", weights_only=True), step=2)
        return run

    def weights_alone() -> Trainer:
        run = new_run()
        run.network.load_state_dict(weights)
        return run

    def check(resumed: Callable[[], Trainer]) -> None:
        run = resumed()
        run.step(random_batch(2), learning_rate=1e-3)
        for resumed_value, value in zip(run.network.parameters(), straight.network.parameters(), strict=True):
            assert torch.allclose(resumed_value, value, rtol=0, atol=1e-6)

    show(check, ours=ours, port=weights_alone)


def test_batches_do_not_end_with_the_epoch():
    """ssd.pytorch `train.py` asks an iterator over one epoch for more batches and gets StopIteration."""
    one = GroundTruth([[0, 0, 20, 20]], [0])
    dataset = Dataset("three", ("cat",), [gray_sample(name, one) for name in "abc"])

    def check(batches: Iterator[Batch]) -> None:
        assert len(list(islice(batches, 4))) == 4

    show(check, ours=batches_of(dataset, batch_size=2), port=islice(batches_of(dataset, batch_size=2), 2))


# Postprocess


def selected(boxes: Tensor, scores: Tensor, settings: Postprocess = SSD300.postprocess) -> list[int]:
    """Returns the indices of the boxes that are kept, in order, from boxes in corner form and scores by class."""
    logits = torch.cat([1 - scores.sum(dim=1, keepdim=True), scores], dim=1).log()
    centers = corner_to_center(boxes.numpy())
    found = postprocess(np.zeros((len(boxes), 4), np.float32), logits.numpy(), centers, SSD300, settings=settings)
    return sorted(found.default_box_indices.tolist())


@pytest.mark.parametrize(
    "port",
    [
        pytest.param(200, id="ssd.pytorch layers/functions/detection.py, NVIDIA ssd/utils.py: 200"),
        pytest.param(1000, id="mmdetection nms_pre: 1000"),
    ],
)
def test_four_hundred_boxes_of_a_class_enter_suppression(port: int):
    boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(500, 1)
    boxes[300] += 2  # far from all others
    boxes[450] += 4
    scores = torch.linspace(0.9, 0.5, 500)[:, None]

    def check(limit: int) -> None:
        assert selected(boxes, scores, replace(SSD300.postprocess, max_candidates_per_class=limit)) == [0, 300]

    show(check, ours=SSD300.postprocess.max_candidates_per_class, port=port)


def two_classes_far_apart() -> tuple[Tensor, Tensor]:
    """Returns 300 boxes in a row with different scores; every second one is of the second class."""
    place = torch.arange(300.0)
    boxes = torch.stack([2 * place, torch.zeros(300), 2 * place + 1, torch.ones(300)], dim=1)
    sure = torch.linspace(0.9, 0.3, 300)
    even = place % 2 == 0
    return boxes, torch.stack([sure.where(even, 0.001), sure.where(~even, 0.001)], dim=1)


def test_two_hundred_detections_are_kept_of_all_classes_together():
    """ssd.pytorch `layers/functions/detection.py` calls `fill_` on a copy, so each class keeps its 200."""
    boxes, scores = two_classes_far_apart()

    def each_class(boxes: Tensor, scores: Tensor) -> list[int]:
        found = torch.tensor([[score, place] for place, score in enumerate(scores.max(dim=1).values.tolist())])
        rank = found[:, 0].argsort(descending=True).argsort()
        found[rank >= 200].fill_(0)
        return found[found[:, 0] > 0, 1].long().tolist()

    def check(rule: Callable[[Tensor, Tensor], list[int]]) -> None:
        assert rule(boxes, scores) == list(range(200))

    show(check, ours=selected, port=each_class)


def test_the_limit_is_not_a_hundred():
    """lufficc/SSD `ssd/config/defaults.py` limits them to 100 (`MAX_PER_IMAGE`)."""

    def check(limit: int) -> None:
        assert len(selected(*two_classes_far_apart(), replace(SSD300.postprocess, max_detections=limit))) == 200

    show(check, ours=SSD300.postprocess.max_detections, port=100)


@pytest.mark.parametrize(
    ("score", "overlap"),
    [
        pytest.param(0.05, 0.50, id="NVIDIA ssd/utils.py, ssd/evaluate.py: scores above 0.05, overlaps up to 0.50"),
        pytest.param(0.02, 0.45, id="mmdetection configs/ssd/ssd300_coco.py: scores above 0.02"),
    ],
)
def test_thresholds_are_a_hundredth_and_45_percent(score: float, overlap: float):
    """The first two boxes overlap by 0.47, so only the better one is kept. The others score 0.03 and 0.015."""
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0.47, 1], [2, 0, 3, 1], [4, 0, 5, 1]])
    scores = torch.tensor([[0.9], [0.8], [0.03], [0.015]])

    def check(settings: Postprocess) -> None:
        assert selected(boxes, scores, settings) == [0, 2, 3]

    port = replace(SSD300.postprocess, score_threshold=score, iou_threshold=overlap)
    show(check, ours=SSD300.postprocess, port=port)


def test_boxes_suppress_each_other_as_they_are_not_as_they_are_clipped():
    """torchvision `ssd.py` clips boxes to the image first: an overlap of 0.43 becomes 0.91."""
    boxes = torch.tensor([[-0.6, 0, 0.5, 1], [0, 0, 0.55, 1]])
    scores = torch.tensor([[0.9], [0.8]])

    def clipped(boxes: Tensor, scores: Tensor) -> list[int]:
        return selected(boxes.clamp(0, 1), scores)

    def check(rule: Callable[[Tensor, Tensor], list[int]]) -> None:
        assert rule(boxes, scores) == [0, 1]

    show(check, ours=selected, port=clipped)


# Evaluation


def test_annotations_are_those_of_the_split(tmp_path: Path):
    """ssd.pytorch `eval.py` stores the annotations of the first split in `annots.pkl` and uses them for all splits."""
    cat = voc_xml(voc_object("cat", (10, 8, 30, 40)))
    write_voc_set(tmp_path, {"a": cat}, split="train")
    write_voc_set(tmp_path, {"b": cat}, split="test")
    cache: dict[str, list[str]] = {}

    def ours(split: str) -> list[str]:
        return [sample.name for sample in read_dataset(tmp_path, split=split)]

    def cached(split: str) -> list[str]:
        return cache.setdefault("annots.pkl", ours(split))

    def check(rule: Callable[[str], list[str]]) -> None:
        assert (rule("train"), rule("test")) == (["a.png"], ["b.png"])

    show(check, ours=ours, port=cached)
