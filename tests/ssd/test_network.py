import dataclasses

import pytest
import torch
from torch import nn

from multibox.config import DetectorConfig, FeatureMap
from multibox.presets import preset
from multibox.ssd.build import copy_classes
from multibox.ssd.network import SSD, L2Norm

# A small image for the small base network: 64 x 96 pixels are 8 x 12, 4 x 6, 2 x 3 and 1 x 2 cells
TINY = dataclasses.replace(
    preset("ssd256-tiny"),
    height=64,
    width=96,
    extras=preset("ssd256-tiny").extras[:2],
    feature_maps=(
        FeatureMap("stage3", 8, 12, (8, 8), ((8, 8), (16, 8)), norm="l2", head="separable"),
        FeatureMap("stage4", 4, 6, (16, 16), ((16, 16), (32, 16), (16, 32)), head="separable"),
        FeatureMap("stage5", 2, 3, (32, 32), ((32, 32),), head="separable"),
        FeatureMap("conv6_2", 1, 2, (64, 48), ((48, 64), (64, 64)), head="separable"),
    ),
)
TINY_WITH_THE_PAPERS_HEADS = dataclasses.replace(
    TINY,
    extras_batch_norm=False,
    feature_maps=tuple(dataclasses.replace(row, head="conv3x3") for row in TINY.feature_maps),
)

# VGG-16 without extra layers, on two source layers: 32 x 48 pixels are 4 x 6 and 2 x 3 cells
SMALL_VGG = dataclasses.replace(
    preset("ssd300-vgg16"),
    height=32,
    width=48,
    extras=(),
    feature_maps=(
        FeatureMap("conv4_3", 4, 6, (8, 8), ((8, 8), (16, 8)), norm="l2"),
        FeatureMap("conv7", 2, 3, (16, 16), ((16, 16),)),
    ),
)


def create(config: DetectorConfig, *, num_classes: int, seed: int = 0) -> SSD:
    torch.manual_seed(seed)
    return SSD(config, num_classes=num_classes).eval()


def random_images(config: DetectorConfig, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, config.height, config.width), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def tiny() -> SSD:
    return create(TINY, num_classes=3)


@torch.no_grad()
def test_forward_gives_offsets_and_logits_of_every_default_box(tiny):
    for count in (1, 2):
        offsets, logits = tiny(random_images(TINY, count))
        assert len(tiny.default_boxes) == 8 * 12 * 2 + 4 * 6 * 3 + 2 * 3 + 1 * 2 * 2
        assert offsets.shape == (count, len(tiny.default_boxes), 4)
        assert logits.shape == (count, len(tiny.default_boxes), 3 + 1)
        assert torch.isfinite(offsets).all() and torch.isfinite(logits).all()


@torch.no_grad()
def test_whole_numbers_and_decimal_ones_are_the_same_image(tiny):
    images = random_images(TINY)
    for one, other in zip(tiny(images), tiny(images.float()), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_an_image_does_not_feel_its_neighbors_in_the_batch(tiny):
    images = random_images(TINY, 3)
    together = tiny(images)
    for place, image in enumerate(images):
        for alone, batch in zip(tiny(image[None]), together, strict=True):
            torch.testing.assert_close(alone[0], batch[place], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pixels_are_normalized_by_mean_and_scale():
    config = dataclasses.replace(TINY, mean=(10.0, 20.0, 30.0), scale=(2.0, 4.0, 5.0))
    plain = dataclasses.replace(TINY, mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0))
    images = random_images(TINY).float()
    normalized = torch.stack([(images[:, 0] - 10) / 2, (images[:, 1] - 20) / 4, (images[:, 2] - 30) / 5], dim=1)
    for one, other in zip(create(config, num_classes=2)(images), create(plain, num_classes=2)(normalized), strict=True):
        torch.testing.assert_close(one, other)


def test_state_dict_has_the_papers_layer_names():
    with torch.device("meta"):
        keys = set(SSD(preset("ssd300-vgg16"), num_classes=20).state_dict())
    stages = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    backbone = [f"conv{stage}_{place}" for stage, last in stages.items() for place in range(1, last + 1)]
    extras = [f"conv{number}_{place}" for number in (8, 9, 10, 11) for place in (1, 2)]
    sources = ["conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2"]
    layers = [f"backbone.{name}" for name in [*backbone, "conv6", "conv7"]]
    layers += [f"extras.{name}" for name in extras]
    layers += [f"{kind}.{source}" for kind in ("offsets", "logits") for source in sources]
    assert keys == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")} | {"norm.conv4_3.weight"}


# --- L2Norm ---


def test_l2_norm_is_the_formula():
    torch.manual_seed(1)
    features, norm = torch.randn(2, 5, 3, 4), L2Norm(5, scale=20.0)
    assert norm.weight.tolist() == [20.0] * 5
    norm.weight.data = torch.tensor([1.0, 2, 3, 4, 5])
    found = norm(features)
    for image in range(2):
        for row in range(3):
            for column in range(4):
                cell = features[image, :, row, column]
                length = sum(value**2 for value in cell.tolist()) ** 0.5
                expected = cell / length * torch.tensor([1.0, 2, 3, 4, 5])
                torch.testing.assert_close(found[image, :, row, column], expected)


def test_l2_norm_adds_a_ten_thousand_millionth_below_the_root():
    """Of a cell whose features' squares sum to 1e-10 as well, the length becomes the scale by the root of 2."""
    features = torch.full((1, 4, 1, 1), 1e-5 / 2)
    assert L2Norm(4, scale=20.0)(features).norm().item() == pytest.approx(20 / 2**0.5, rel=1e-5)


def test_l2_norm_of_nothing_is_nothing_with_finite_gradients():
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    norm = L2Norm(4, scale=20.0)
    found = norm(features)
    found.sum().backward()
    assert (found == 0).all() and torch.isfinite(features.grad).all() and torch.isfinite(norm.weight.grad).all()


def test_l2_norm_starts_at_20_and_is_on_conv4_3_only():
    network = create(SMALL_VGG, num_classes=1)
    assert list(network.norm) == ["conv4_3"]
    assert network.norm["conv4_3"].weight.tolist() == [20.0] * 512


# --- VGG-16 ---


@torch.no_grad()
def test_pools_round_up_and_conv6_is_dilated():
    """300 -> 150 -> 75 -> 38 -> 19; pool5 leaves 19. Here a quarter of it: 76 -> 38 -> 19 -> 10 -> 5."""
    backbone = create(SMALL_VGG, num_classes=1).backbone
    shapes = {name: tuple(source.shape) for name, source in backbone(torch.rand(1, 3, 76, 76)).items()}
    assert shapes == {"conv4_3": (1, 512, 10, 10), "conv7": (1, 1024, 5, 5)}
    conv6 = backbone.conv6
    assert (conv6.in_channels, conv6.out_channels, conv6.kernel_size) == (512, 1024, (3, 3))
    assert conv6.dilation == conv6.padding == (6, 6)
    pool5 = backbone.pool5
    assert (pool5.kernel_size, pool5.stride, pool5.padding) == (3, 1, 1)


@torch.no_grad()
def test_training_changes_nothing_about_the_forward_pass():
    """VGG-16 has neither dropout nor BatchNorm here, nor have the layers behind it."""
    network = create(SMALL_VGG, num_classes=1)
    images = random_images(SMALL_VGG, 2)
    evaluated = network(images)
    for one, other in zip(network.train()(images), evaluated, strict=True):
        assert torch.equal(one, other)
    assert not list(network.buffers())[3:]  # default boxes, mean and scale: no statistics


@torch.no_grad()
def test_network_is_torchvisions_given_the_same_weights():
    """With three classes, on an image that still leaves each map a cell: 268 -> 134 -> 67 -> 34 -> 17 (torchvision's
    third pool alone rounds up, so that on 300 x 300 the two agree, but not on every size)."""
    from torchvision.models.detection import ssd300_vgg16

    config = dataclasses.replace(preset("ssd300-vgg16"), height=268, width=268)
    ours = create(config, num_classes=3)
    with torch.device("meta"):
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4)

    convolutions = [layer for layer in ours.backbone.children() if isinstance(layer, nn.Conv2d)]
    convolutions += [layer for layer in ours.extras.modules() if isinstance(layer, nn.Conv2d)]
    for head in (ours.logits, ours.offsets):
        convolutions += head.values()
    keys = [key.removesuffix(".weight") for key in theirs.state_dict() if key.endswith(".weight")]
    # torchvision holds the layers in the order of the network, except that its heads come as classes, then boxes
    state = {"backbone.scale_weight": ours.norm["conv4_3"].weight}
    for key, layer in zip(keys, convolutions, strict=True):
        state |= {f"{key}.weight": layer.weight, f"{key}.bias": layer.bias}
    theirs.load_state_dict(state, assign=True)

    images = random_images(config, 1)
    offsets, logits = ours(images)
    features = theirs.backbone(images - torch.tensor([123.0, 117, 104]).view(3, 1, 1))
    expected = theirs.head(list(features.values()))
    torch.testing.assert_close(logits, expected["cls_logits"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(offsets, expected["bbox_regression"], rtol=1e-3, atol=1e-4)
    assert logits.std() > 0.1


# --- the order of the output ---


class RowsAndColumns(nn.Module):
    """A base network whose features are the row and the column of each cell."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        sources = {}
        for name, (rows, columns) in {"stage3": (3, 5), "stage4": (2, 3), "stage5": (1, 2)}.items():
            row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            channels = {"stage3": 64, "stage4": 128, "stage5": 128}[name]
            sources[name] = torch.zeros(len(images), channels, rows, columns)
            sources[name][:, 0], sources[name][:, 1] = row, column
        return sources


@torch.no_grad()
def test_output_is_in_the_order_of_the_default_boxes():
    """Each head tells map, row, column and box; the table of default boxes has that very box in that row."""
    classes = 2
    shapes = {"stage3": ((10, 10), (20, 10), (10, 20)), "stage4": ((30, 30),), "stage5": ((40, 50), (60, 50))}
    rows = (
        FeatureMap("stage3", 3, 5, (20, 20), shapes["stage3"]),
        FeatureMap("stage4", 2, 3, (30, 33), shapes["stage4"]),
        FeatureMap("stage5", 1, 2, (60, 50), shapes["stage5"]),
    )
    config = dataclasses.replace(TINY_WITH_THE_PAPERS_HEADS, height=60, width=100, extras=(), feature_maps=rows)
    network = create(config, num_classes=classes)
    network.backbone = RowsAndColumns()
    for number, (layer, boxes) in enumerate(shapes.items()):
        for heads, width in ((network.offsets, 4), (network.logits, classes + 1)):
            head = heads[layer]
            head.weight.zero_()
            by_box, bias = head.weight.unflatten(0, (len(boxes), width)), head.bias.view(len(boxes), width)
            by_box[:, 0, 0, 1, 1] = 1  # value 0: the row
            by_box[:, 1, 1, 1, 1] = 1  # value 1: the column
            bias[:, 2] = torch.arange(len(boxes)).float()  # value 2: the box
            if width == 4:
                bias[:, 3] = number  # value 3: the map
    offsets, logits = network(torch.zeros(2, 3, 60, 100))
    assert torch.equal(logits, offsets[..., :3])  # two classes and background: row, column, box

    for default_box, (row, column, box, number) in zip(network.default_boxes, offsets[1].long().tolist(), strict=True):
        feature_map = rows[number]
        width, height = feature_map.box_sizes[box]
        step_y, step_x = feature_map.step
        expected = [(column + 0.5) * step_x / 100, (row + 0.5) * step_y / 60, width / 100, height / 60]
        assert default_box.tolist() == pytest.approx(expected)


# --- the first weights ---


@pytest.mark.parametrize("config", [SMALL_VGG, TINY, TINY_WITH_THE_PAPERS_HEADS])
def test_new_layers_start_as_caffes_xavier(config):
    """Uniform in ±sqrt(3 / fan-in): PyTorch's Xavier takes fan-in and fan-out, and is narrower."""
    network = create(config, num_classes=4)
    convolutions = [
        layer
        for part in (network.extras, network.offsets, network.logits)
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    assert len(convolutions) >= 4
    for layer in convolutions:
        fan_in = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        bound = (3 / fan_in) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.15)
        assert layer.bias is None or (layer.bias == 0).all()


def test_backbone_is_not_initialized_again_as_a_new_layer():
    conv6 = create(SMALL_VGG, num_classes=1).backbone.conv6
    assert conv6.weight.abs().max() > (3 / conv6.weight[0].numel()) ** 0.5


# --- classes ---


def class_rows(head: nn.Module, classes: int) -> list[torch.Tensor]:
    """Weights and biases of the class head, `(boxes, classes and background, ...)`."""
    last = head.pointwise if isinstance(head, nn.Sequential) else head
    return [values.unflatten(0, (-1, classes + 1)) for values in (last.weight, last.bias)]


def with_random_biases(network: SSD) -> SSD:
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return network


@pytest.mark.parametrize("config", [TINY, TINY_WITH_THE_PAPERS_HEADS, SMALL_VGG])
def test_copy_classes_keeps_the_named_ones_and_leaves_the_new(config):
    source = with_random_biases(create(config, num_classes=4, seed=1))
    target = with_random_biases(create(config, num_classes=3, seed=2))
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    source_before = {key: tensor.clone() for key, tensor in source.state_dict().items()}
    fresh = {layer: [rows.clone() for rows in class_rows(head, 3)] for layer, head in target.logits.items()}
    copy_classes(source, target, [2, None, 0])

    for layer, head in target.logits.items():
        pairs = zip(class_rows(head, 3), class_rows(source.logits[layer], 4), fresh[layer], strict=True)
        for found, old, new in pairs:
            for column, expected in enumerate([old[:, 0], old[:, 3], new[:, 2], old[:, 1]]):
                assert torch.equal(found[:, column], expected)
    for key, tensor in target.state_dict().items():
        if tensor.shape == source.state_dict()[key].shape:
            assert torch.equal(tensor, source.state_dict()[key])
        else:
            assert key.startswith("logits.") and not torch.equal(tensor, before[key])
    for key, tensor in source.state_dict().items():
        assert torch.equal(tensor, source_before[key])


@torch.no_grad()
def test_copied_classes_are_found_as_before():
    source, target = create(TINY, num_classes=4, seed=1), create(TINY, num_classes=2, seed=2)
    copy_classes(source, target, [3, None])
    images = random_images(TINY, 1)
    old, new = source(images), target(images)
    torch.testing.assert_close(new.offsets, old.offsets)
    torch.testing.assert_close(new.logits[..., :2], old.logits[..., [0, 4]])


def test_copy_classes_where_none_is_kept_still_takes_over_the_background():
    source, target = create(TINY, num_classes=2, seed=1), create(TINY, num_classes=2, seed=2)
    copy_classes(source, target, [None, None])
    for layer in target.logits:
        found, old = class_rows(target.logits[layer], 2)[0], class_rows(source.logits[layer], 2)[0]
        assert torch.equal(found[:, 0], old[:, 0]) and not torch.equal(found[:, 1:], old[:, 1:])


def test_another_size_than_the_configs_is_refused(tiny):
    """It used to give fewer or more rows than there are default boxes, or an error of a convolution."""
    height, width = TINY.height, TINY.width
    for shape in ((1, 3, height, width - 32), (1, 3, height + 32, width)):
        with pytest.raises(ValueError, match=rf"takes inputs of \(batch, 3, {height}, {width}\), but these are "):
            tiny(torch.zeros(shape, dtype=torch.uint8))


# --- exporters ---


@torch.no_grad()
def test_network_is_plain_tensor_code_that_can_be_exported(tiny):
    images = random_images(TINY)
    program = torch.export.export(tiny, (images,))
    for one, other in zip(program.module()(images), tiny(images), strict=True):
        torch.testing.assert_close(one, other)
