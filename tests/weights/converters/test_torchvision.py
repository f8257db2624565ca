"""torchvision's two detectors, converted: the same rules, the same raw outputs, the same detections.

Their weights are random, but made realistic, as those of trained detectors cannot be had offline: BatchNorm knows the
statistics of images, and class scores are such that a few hundred of them pass the threshold.
"""

import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection import SSD300_VGG16_Weights
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou
from torchvision.transforms.functional import pil_to_tensor

from multibox.config import Postprocess
from multibox.data.synthetic import synthetic_scene
from multibox.detector import Detector
from multibox.ssd.coder import center_to_corner
from multibox.weights.convert import convert_weights
from tests.slow import slow

BUILD: dict[str, Callable[..., SSD]] = {
    "ssd300_vgg16": detection.ssd300_vgg16,
    "ssdlite320_mobilenet_v3_large": detection.ssdlite320_mobilenet_v3_large,
}


def build(name: str, classes_and_background: int = 91, *, seed: int = 0) -> SSD:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILD[name](weights=None, weights_backbone=None, num_classes=classes_and_background).eval()


@torch.no_grad()
def make_realistic(model: SSD, images: list[Tensor], *, passing: int = 500) -> None:
    """BatchNorm calibrated, heads centered and scaled, and a background that leaves so many scores of each image."""
    images = model.transform(images)[0].tensors
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that it sees
    parts = (model.backbone, model.head)
    if norms:
        for part in parts:
            part.train()
        model.head(list(model.backbone(images).values()))
        for part in parts:
            part.eval()
    features = list(model.backbone(images).values())
    columns = model.head.classification_head.num_columns
    logits = []
    for head, spread in ((model.head.regression_head, 0.3), (model.head.classification_head, 1.0)):
        for block, source in zip(head.module_list, features, strict=True):
            last = block if isinstance(block, nn.Conv2d) else block[-1]
            found = block(source)
            mean = found.mean(dim=(0, 2, 3))
            scale = spread / (found - mean[:, None, None]).std()
            last.weight.mul_(scale)
            last.bias.sub_(mean).mul_(scale)
            if head is model.head.classification_head:
                values = block(source).unflatten(1, (-1, columns)).movedim(2, -1)
                logits.append(values.reshape(len(images), -1, columns))
    table = torch.cat(logits, dim=1)
    low, high = -20.0, 40.0
    for _ in range(40):
        middle = (low + high) / 2
        shifted = table.clone()
        shifted[..., 0] += middle
        above = (shifted.softmax(dim=-1)[..., 1:] > model.score_thresh).sum(dim=(1, 2)).min()
        low, high = (middle, high) if above > passing else (low, middle)
    for block in model.head.classification_head.module_list:
        last = block if isinstance(block, nn.Conv2d) else block[-1]
        last.bias.view(-1, columns)[:, 0] += middle


def read(path: Path) -> Tensor:
    """As torchvision's detectors take images: from 0 to 1."""
    return pil_to_tensor(Image.open(path).convert("RGB")) / 255


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of synthetic scenes of two sizes, larger and smaller than the input."""
    folder = tmp_path_factory.mktemp("drawn")
    paths = []
    for index, (height, width) in enumerate([(375, 500), (240, 200)]):
        paths.append(folder / f"{index}.png")
        synthetic_scene(index, seed=5, height=height, width=width).open().save(paths[-1])
    return paths


# one pass of SSD300 takes seconds on a small machine
EACH = [pytest.param("ssd300_vgg16", marks=pytest.mark.slow), "ssdlite320_mobilenet_v3_large"]


@pytest.fixture(scope="module", params=EACH)
def pair(request: pytest.FixtureRequest, drawn: list[Path], tmp_path_factory: pytest.TempPathFactory):
    """A model of torchvision, and what its saved state dict converts to."""
    model = build(request.param)
    make_realistic(model, [read(path) for path in drawn])
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save(model.state_dict(), path)
    return model, Detector.convert(path)


def test_the_rules_are_those_of_the_model(pair):
    model, detector = pair
    config = detector.config
    assert (config.height, config.width) == model.transform.fixed_size
    assert config.mean == pytest.approx([255 * value for value in model.transform.image_mean])
    assert config.scale == pytest.approx([255 * value for value in model.transform.image_std])
    assert config.postprocess == Postprocess(
        score_threshold=model.score_thresh,
        iou_threshold=model.nms_thresh,
        class_agnostic=False,
        max_candidates_per_class=model.topk_candidates,
        max_detections=model.detections_per_img,
    )
    assert config.max_log_size == model.box_coder.bbox_xform_clip
    assert (1 / config.center_variance, 1 / config.size_variance) == pytest.approx(model.box_coder.weights[1:3])
    assert (config.resize, config.scoring, config.clip_boxes) == ("float", "softmax", True)
    names = SSD300_VGG16_Weights.COCO_V1.meta["categories"][1:]
    assert len(set(detector.class_names)) == len(detector.class_names) == 90
    assert [name.partition(" ")[0] if "N/A" in name else name for name in detector.class_names] == names
    assert [name for name in detector.class_names if "N/A" in name][:2] == ["N/A 12", "N/A 26"]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-3)])
def test_raw_outputs_and_default_boxes_are_equal(pair, drawn: list[Path], kind: torch.dtype, tolerance: float):
    """To 1e-5 in 64 bits; in 32 bits logits of up to 30 differ by 1e-4 or so, by the order of the sums."""
    model, detector = pair
    side = detector.config.height
    images = torch.stack([nn.functional.interpolate(read(path)[None], size=(side, side))[0] for path in drawn[:1]]).to(
        kind
    )
    try:
        normalized = model.to(kind).transform(list(images))[0]
        features = list(model.backbone(normalized.tensors).values())
        expected = model.head(features)
        offsets, logits = detector.network.to(kind)(images * 255)
        assert expected["cls_logits"].std() > 0.5  # not all the same
        torch.testing.assert_close(offsets, expected["bbox_regression"], rtol=0, atol=tolerance)
        torch.testing.assert_close(logits, expected["cls_logits"], rtol=0, atol=tolerance)
        boxes = center_to_corner(detector.network.default_boxes) * side
        torch.testing.assert_close(boxes, model.anchor_generator(normalized, features)[0], rtol=0, atol=1e-4)
    finally:
        model.float()
        detector.network.float()


class Comparison(Counter[str]):
    """How many detections pair strictly, and why the others do not."""

    def __str__(self) -> str:
        return ", ".join(f"{number} {what}" for what, number in self.items())


@torch.no_grad()
def compare(model: SSD, detector: Detector, paths: list[Path]) -> Comparison:
    """Detections from the image file on, paired by class and overlap."""
    result = Comparison()
    low = detector.config.postprocess.score_threshold
    for path, found in zip(paths, detector.detect(paths, score_threshold=low), strict=True):
        (theirs,) = model([read(path)])
        assert len(theirs["boxes"]) >= 50, f"{path.name}: only {len(theirs['boxes'])} detections"
        ours = {
            "boxes": torch.from_numpy(found.boxes),
            "scores": torch.from_numpy(found.scores),
            "labels": torch.from_numpy(found.labels) + 1,
        }
        result += compare_one(theirs, ours, detector.config.postprocess)
    return result


def compare_one(theirs: dict[str, Tensor], ours: dict[str, Tensor], selection: Postprocess) -> Comparison:
    overlap = box_iou(theirs["boxes"], ours["boxes"]).nan_to_num(1.0)
    overlap[theirs["labels"][:, None] != ours["labels"]] = -1
    result = Comparison()
    left = {"theirs": set(range(len(overlap))), "ours": set(range(overlap.shape[1]))}
    for place in overlap.flatten().argsort(descending=True, stable=True).tolist():
        one, other = divmod(place, overlap.shape[1])
        if overlap[one, other] < 0.5:
            break
        if one not in left["theirs"] or other not in left["ours"]:
            continue
        pixels = (theirs["boxes"][one] - ours["boxes"][other]).abs().max()
        score = (theirs["scores"][one] - ours["scores"][other]).abs()
        if pixels <= 0.01 and score <= 1e-4:
            left["theirs"].remove(one)
            left["ours"].remove(other)
            result["pairs"] += 1
    sides = {"theirs": (theirs, ours), "ours": (ours, theirs)}
    for side, places in left.items():
        here, there = sides[side]
        for place in places:
            result[f"of {side} alone: {reason(here, there, place, selection)}"] += 1
    return result


def reason(here: dict[str, Tensor], there: dict[str, Tensor], place: int, selection: Postprocess) -> str:
    """Why a detection of one side may have none on the other, where rounding decides; `none` where it does not."""
    box, score, label = (here[key][place] for key in ("boxes", "scores", "labels"))
    if score - selection.score_threshold <= 1e-4:
        return "score at the threshold"
    rivals = torch.cat([side["boxes"][side["labels"] == label] for side in (here, there)])
    overlaps = box_iou(box[None], rivals)[0]
    if ((overlaps - selection.iou_threshold).abs() <= 1e-4).any():
        return "overlap at the threshold"
    same = (there["labels"] == label) & (box_iou(box[None], there["boxes"])[0] > selection.iou_threshold)
    if ((there["scores"][same] - score).abs() <= 1e-4).any():
        return "tie"
    if len(there["scores"]) == selection.max_detections and score - there["scores"].min() <= 1e-4:
        return "score at the limit"
    return "none"


def check(result: Comparison) -> None:
    print(result)
    pairs = result["pairs"]
    assert not [what for what in result if what.endswith("none")], result
    assert pairs >= 0.95 * max(
        sum(number for what, number in result.items() if side in what or what == "pairs") for side in ("theirs", "ours")
    )


def test_detections_on_drawn_images_are_equal(pair, drawn: list[Path]):
    model, detector = pair
    check(compare(model, detector, drawn))


def test_detections_on_photographs_are_equal(pair, tmp_path: Path):
    """Twenty of VOC's test set, whose files are read from the archive without unpacking the rest."""
    archive = Path(os.environ.get("MULTIBOX_DATA", "")) / "voc2007-test.zip"
    if not archive.is_file():
        pytest.skip("MULTIBOX_DATA is not set, or has no voc2007-test.zip: see docs/data.md")
    with zipfile.ZipFile(archive) as packed:
        names = sorted(name for name in packed.namelist() if name.endswith(".jpg"))[::247][:20]
        paths = [Path(packed.extract(name, tmp_path)) for name in names]
    assert len(paths) == 20
    model, _ = pair
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    try:
        make_realistic(model, [read(path) for path in (paths if "Mobile" in repr(model.backbone) else paths[::5])])
        torch.save(model.state_dict(), tmp_path / "model.pth")
        check(compare(model, Detector.convert(tmp_path / "model.pth"), paths))
    finally:
        model.load_state_dict(before)


@pytest.mark.parametrize("name", [slow(name) if name == "ssd300_vgg16" else name for name in BUILD])
def test_any_number_of_classes_is_told_from_the_heads(name: str, tmp_path: Path):
    model = build(name, 4)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    detector = Detector.convert(tmp_path / "model.pth")
    assert detector.class_names == ("class 1", "class 2", "class 3")
    side = detector.config.height
    assert detector.network(torch.zeros(1, 3, side, side)).logits.shape[2] == 4


def test_the_full_tail_of_mobilenet_is_told_by_its_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torchvision leaves the tail as it is where training begins with ImageNet's weights, as it does by default."""
    from torchvision.models.detection import ssdlite

    without_weights = ssdlite.mobilenet_v3_large
    monkeypatch.setattr(
        ssdlite, "mobilenet_v3_large", lambda weights, **values: without_weights(weights=None, **values)
    )
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, num_classes=3).eval()
    images = torch.rand(1, 3, 320, 320)
    make_realistic(model, [images[0], 1 - images[0]])
    torch.save(model.state_dict(), tmp_path / "model.pth")
    detector = Detector.convert(tmp_path / "model.pth")
    assert detector.config.backbone == "mobilenet-v3-large"
    with torch.no_grad():
        expected = model.head(list(model.backbone(model.transform([images[0]])[0].tensors).values()))
        found = detector.network(images * 255)
    torch.testing.assert_close(found.logits, expected["cls_logits"], rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    return build("ssdlite320_mobilenet_v3_large", 2).state_dict()


def refused(state: dict[str, Tensor], path: Path, words: str) -> None:
    torch.save(state, path)
    with pytest.raises(ValueError, match=words) as error:
        Detector.convert(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_tensors_that_are_missing_left_over_or_of_another_shape_are_named(small_state, tmp_path: Path):
    path, key = tmp_path / "model.pth", "backbone.extra.1.0.0.weight"
    refused({name: tensor for name, tensor in small_state.items() if name != key}, path, f"'{key}' is missing")
    refused({**small_state, "head.more.weight": torch.ones(1)}, path, r"they have no tensor 'head\.more\.weight'")
    refused({**small_state, key: small_state[key][:-1]}, path, r"1 tensor does not fit .*extras\.extra2_1\.0\.weight")
    bias = "head.classification_head.module_list.0.1.bias"
    refused({**small_state, bias: small_state[bias][:-1]}, path, "has 11 outputs, .* each of the 6 boxes of a cell")


def test_tensors_without_axes_are_refused(small_state, tmp_path: Path):
    for key in ("backbone.features.1.3.0.weight", "head.classification_head.module_list.0.1.bias"):
        refused({**small_state, key: torch.tensor(1.0)}, tmp_path / "model.pth", "damaged, or another model|1 outputs")


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn", "resnet18"])
def test_other_models_of_torchvision_are_told_apart(name: str, tmp_path: Path):
    from torchvision.models import get_model

    with torch.device("meta"):
        settings = {} if name == "resnet18" else {"weights_backbone": None}
        keys = get_model(name, weights=None, **settings).state_dict()
    path = tmp_path / "model.pth"
    torch.save({key: torch.ones(1) for key in keys}, path)
    with pytest.raises(ValueError, match="the weights of no detector that can be converted"):
        convert_weights(path)
