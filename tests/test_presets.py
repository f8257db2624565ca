import dataclasses
import re
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from multibox.config import DetectorConfig, Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.presets import FIGURE_CLASSES, PRESETS, feature_map_table, paper_box_sizes, paper_sizes, preset
from multibox.ssd.network import SSD
from tests.slow import slow

EVERY_PRESET = [(name, scales) for name in PRESETS for scales in ("voc", "coco")]
SIZES = [(240, 320), (97, 131), (32, 32), slow(768, 768), slow(320, 240), slow(96, 96), slow(333, 205)]


def network_without_numbers(config: DetectorConfig, *, num_classes: int) -> SSD:
    """All the shapes of the real one, in no time."""
    with torch.device("meta"):
        return SSD(config, num_classes=num_classes).eval()


def images_without_numbers(config: DetectorConfig) -> torch.Tensor:
    return torch.empty(1, 3, config.height, config.width, device="meta")


def parameters(network: SSD) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "name, classes, expected",
    [
        ("ssd300-vgg16", 20, 26_285_486),
        ("ssd300-vgg16", 80, 34_305_206),
        ("ssd300-vgg16", 90, 35_641_826),  # torchvision's
        ("ssd512-vgg16", 20, 27_188_676),
        ("ssd512-vgg16", 80, 36_038_196),
    ],
)
def test_parameters_of_the_authors_networks(name, classes, expected):
    for scales in ("voc", "coco"):
        assert parameters(network_without_numbers(preset(name, scales=scales), num_classes=classes)) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_says_of_itself_is_counted(name):
    known, config = PRESETS[name], preset(name)
    network = network_without_numbers(config, num_classes=FIGURE_CLASSES)
    assert parameters(network) == known.parameters
    with FlopCounterMode(display=False) as counter:
        network(images_without_numbers(config))
    # the counter takes a multiplication and an addition as two
    assert counter.get_total_flops() / 2e9 == pytest.approx(known.gmac, rel=2e-3)
    assert config.name == name


@torch.no_grad()
def check_rows(config: DetectorConfig) -> None:
    """The rows are the maps that the network gives, and its output has a row for each default box of the table."""
    network = network_without_numbers(config, num_classes=3)
    shapes = {}
    for layer, head in network.logits.items():
        head.register_forward_pre_hook(lambda _, sources, layer=layer: shapes.update({layer: sources[0].shape[2:]}))
    offsets, logits = network(images_without_numbers(config))
    assert shapes == {row.layer: (row.rows, row.columns) for row in config.feature_maps}
    assert offsets.shape == (1, config.num_default_boxes, 4) and logits.shape == (1, config.num_default_boxes, 4)
    assert len(make_default_boxes(config)) == config.num_default_boxes


@pytest.mark.parametrize("name, scales", EVERY_PRESET)
def test_rows_of_a_preset_are_the_maps_of_its_network(name, scales):
    check_rows(preset(name, scales=scales))


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_rows_of_any_size_are_the_maps_of_the_network(name, height, width):
    config = preset(name, height=height, width=width)
    assert (config.height, config.width) == (height, width)
    check_rows(config)


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_default_boxes_of_any_size_cover_the_image(name, height, width):
    """Centers are on the image (the cells of the backbone's maps may overhang it by less than one), and sizes grow
    from map to map up to nearly the whole image."""
    config = preset(name, height=height, width=width)
    boxes, begin = make_default_boxes(config), 0
    areas = []
    for row in config.feature_maps:
        table = boxes[begin : begin + row.num_default_boxes].reshape(row.rows, row.columns, -1, 4)
        begin += row.num_default_boxes
        (first_x, first_y), (last_x, last_y) = table[0, 0, 0, :2], table[-1, -1, 0, :2]
        assert 0 < first_x <= 0.5 and 0 < first_y <= 0.5
        assert 1 - 0.5 / row.columns - 1e-6 <= last_x < 1 + 0.5 * row.step[1] / width
        assert 1 - 0.5 / row.rows - 1e-6 <= last_y < 1 + 0.5 * row.step[0] / height
        sizes = table[..., 2:] * [width, height]
        assert (sizes >= 1).all()
        areas.append(row.box_sizes[0][0] * row.box_sizes[0][1])
    assert areas == sorted(areas)
    assert 0.7 * height * width < areas[-1] < height * width
    if (config.feature_maps[-1].rows, config.feature_maps[-1].columns) == (1, 1):
        assert boxes[-1, :2].tolist() == pytest.approx([0.5, 0.5])
    else:  # these always have six maps
        assert config.backbone.startswith("mobilenet")


@pytest.mark.parametrize(
    "name, grids, steps, counts",
    [
        ("ssd300-vgg16", [38, 19, 10, 5, 3, 1], [8, 16, 32, 64, 100, 300], [5776, 2166, 600, 150, 36, 4]),
        (
            "ssd512-vgg16",
            [64, 32, 16, 8, 4, 2, 1],
            [8, 16, 32, 64, 128, 256, 512],
            [16384, 6144, 1536, 384, 96, 16, 4],
        ),
        ("ssd256-tiny", [32, 16, 8, 4, 2, 1], [8, 16, 32, 64, 128, 256], [4096, 1536, 384, 96, 16, 4]),
    ],
)
def test_maps_of_the_presets(name, grids, steps, counts):
    for scales in ("voc", "coco"):
        rows = preset(name, scales=scales).feature_maps
        assert [row.rows for row in rows] == [row.columns for row in rows] == grids
        assert [row.step for row in rows] == [(step, step) for step in steps]
        assert [row.num_default_boxes for row in rows] == counts
        assert [row.offset for row in rows] == [0.5] * len(rows)


def test_source_layers_have_the_papers_names_and_only_conv4_3_is_normalized():
    layers = ["conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2", "conv12_2"]
    for name, count in (("ssd300-vgg16", 6), ("ssd512-vgg16", 7)):
        rows = preset(name).feature_maps
        assert [row.layer for row in rows] == layers[:count]
        assert [row.norm for row in rows] == ["l2"] + [None] * (count - 1)


@pytest.mark.parametrize(
    "side, maps, first, smallest, edges",
    [
        (300, 6, 10, 20, [30, 60, 111, 162, 213, 264, 315]),
        (300, 6, 7, 15, [21, 45, 99, 153, 207, 261, 315]),
        (512, 7, 7, 15, [35, 76, 153, 230, 307, 384, 460, 537]),
        (512, 7, 4, 10, [20, 51, 133, 215, 296, 378, 460, 542]),
    ],
)
def test_sizes_are_those_of_the_authors_scripts_cut_to_whole_pixels(side, maps, first, smallest, edges):
    expected = list(pairwise(edges))
    assert paper_sizes(side, maps, first=first, smallest=smallest) == expected


def test_boxes_of_a_cell_are_in_the_order_of_the_caffe_code():
    # 4 x 9: the squares have sides 4 and sqrt(4 x 9); the others have the area of the small square
    small, large, *others = paper_box_sizes(4, 9, (2, 3))
    assert small == (4, 4) and large == (6, 6)
    assert [width / height for width, height in others] == pytest.approx([2, 1 / 2, 3, 1 / 3])
    assert [width * height for width, height in others] == pytest.approx([16] * 4)


def test_values_of_the_paper():
    for name in ("ssd300-vgg16", "ssd512-vgg16"):
        config = preset(name)
        assert config.mean == (123, 117, 104) and config.scale == (1, 1, 1) and config.resize == "bilinear"
        assert (config.center_variance, config.size_variance) == (0.1, 0.2)
        assert config.postprocess == Postprocess(
            score_threshold=0.01,
            iou_threshold=0.45,
            class_agnostic=False,
            max_candidates_per_class=400,
            max_detections=200,
        )


@pytest.mark.parametrize("name, side", [("ssd300-vgg16", 300), ("ssd512-vgg16", 512), ("ssd256-tiny", 256)])
def test_scales_differ_in_the_boxes_only(name, side):
    voc, coco = preset(name, scales="voc"), preset(name, scales="coco")
    assert (voc.height, voc.width) == (side, side)
    assert voc != coco
    assert preset(name) == {"voc": voc, "coco": coco}[PRESETS[name].scales]
    rows = [dataclasses.replace(row, box_sizes=((1.0, 1.0),)) for row in voc.feature_maps]
    assert rows == [dataclasses.replace(row, box_sizes=((1.0, 1.0),)) for row in coco.feature_maps]
    assert dataclasses.replace(voc, feature_maps=coco.feature_maps) == coco


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("sd300-vgg16", "no preset is called 'sd300-vgg16'; did you mean 'ssd300-vgg16'?"),
        ("ssd512", "no preset is called 'ssd512'; did you mean 'ssd512-vgg16'?"),
        ("tiny", "no preset is called 'tiny'; did you mean 'ssd256-tiny'?"),
        ("yolo", "no preset is called 'yolo'; there are ssd300-vgg16, ssd512-vgg16, ssd256-tiny"),
        ("", "no preset is called ''; there are"),
    ],
)
def test_a_wrong_name_gets_the_nearest(wrong, message):
    with pytest.raises(ValueError, match="multibox models lists them") as caught:
        preset(wrong)
    assert str(caught.value).startswith(message)


def test_wrong_scales_are_refused():
    with pytest.raises(ValueError, match=r"scales must be one of \('voc', 'coco'\), but is 'pascal'"):
        preset.__wrapped__("ssd300-vgg16", scales="pascal")  # past the tests' own type checks


# --- any size ---


def test_the_papers_sizes_are_its_tables_whatever_preset_they_are_asked_of():
    assert preset("ssd300-vgg16", height=512) == preset("ssd512-vgg16")
    assert preset("ssd512-vgg16", width=300) == preset("ssd300-vgg16")
    assert preset("ssd300-vgg16", height=300, width=300) == preset("ssd300-vgg16")


def test_an_input_that_is_not_square():
    """As SSD512 goes on: pairs that halve the map until one cell is left, boxes by the side of the square of its area.

    sqrt(240 x 320) is 277; a tenth, then a fifth and on in steps of floor((90 - 20) / 5) = 14 percent.
    """
    config = preset("ssd300-resnet18", height=240, width=320)
    assert config.name == "ssd240x320-resnet18"
    rows = config.feature_maps
    assert [(row.rows, row.columns) for row in rows] == [(30, 40), (15, 20), (8, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
    assert [row.step for row in rows] == [
        (8, 8), (16, 16), (32, 32), (60, 64), (120, 320 / 3), (240, 160), (240, 320)
    ]  # fmt: skip
    assert [row.box_sizes[0] for row in rows] == [(side, side) for side in (27, 55, 94, 132, 171, 210, 249)]
    assert rows[-1].box_sizes[1][0] ** 2 == pytest.approx(249 * 288)
    assert [len(row.box_sizes) for row in rows] == [4, 6, 6, 6, 6, 4, 4]
    extras = [(layer.name, layer.channels, layer.kernel, layer.stride, layer.padding) for layer in config.extras]
    assert extras == [
        ("conv8_1", 256, 1, 1, 0), ("conv8_2", 512, 3, 2, 1),
        ("conv9_1", 128, 1, 1, 0), ("conv9_2", 256, 3, 2, 1),
        ("conv10_1", 128, 1, 1, 0), ("conv10_2", 256, 3, 2, 1),
        ("conv11_1", 128, 1, 1, 0), ("conv11_2", 256, 3, 2, 1),
    ]  # fmt: skip


def test_centers_are_a_stride_apart_on_the_backbone_and_evenly_spread_on_the_extra_layers():
    """On 300 x 300, where 5 cells of 64 pixels, 3 of 128 and one of 512 would overhang the input more and more."""
    rows = preset("ssd300-resnet34").feature_maps
    assert [row.rows for row in rows] == [38, 19, 10, 5, 3, 2, 1]
    assert [row.step[0] for row in rows] == [8, 16, 32, 60, 100, 150, 300]


@pytest.mark.parametrize("name", PRESETS)
def test_where_one_of_height_and_width_is_given_the_input_is_square(name):
    assert preset(name, height=256) == preset(name, width=256) == preset(name, height=256, width=256)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "size, message",
    [
        ({"height": 31}, "the height of the input must be from 32 to 4096 pixels, but is 31"),
        ({"height": 64, "width": 0}, "the width of the input must be from 32 to 4096 pixels, but is 0"),
        ({"width": -300}, "the height of the input must be from 32 to 4096 pixels, but is -300"),
        ({"height": 300, "width": 4097}, "the width of the input must be from 32 to 4096 pixels, but is 4097"),
    ],
)
def test_inputs_that_are_too_small_or_too_large(name, size, message):
    with pytest.raises(ValueError, match=message):
        preset(name, **size)


def test_a_backbone_that_leaves_too_few_maps():
    with pytest.raises(ValueError, match=r"an input of 32 x 32 leaves 2 feature maps, but there must be at least 3"):
        feature_map_table(32, 32, {"stride16": 16}, "voc")


def test_maps_that_a_backbone_rounds_down():
    extras, rows = feature_map_table(300, 300, {"a": 8, "b": 32}, "voc", grids={"a": (37, 37), "b": (9, 9)})
    assert [(row.layer, row.rows) for row in rows] == [
        ("a", 37), ("b", 9), ("conv8_2", 5), ("conv9_2", 3), ("conv10_2", 2), ("conv11_2", 1)
    ]  # fmt: skip
    assert len(extras) == 8


# --- presets of others ---


def test_ssdlite_has_torchvisions_default_boxes():
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    for name in ("ssdlite320-mobilenetv2", "ssdlite320-mobilenetv3"):
        config = preset(name)
        maps = [torch.empty(1, 1, row.rows, row.columns) for row in config.feature_maps]
        images = ImageList(torch.empty(1, 3, 320, 320), [(320, 320)])
        (corners,) = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)(images, maps)
        expected = torch.cat([corners[:, :2] + corners[:, 2:], 2 * (corners[:, 2:] - corners[:, :2])], dim=1) / 2 / 320
        assert len(expected) == 3234
        torch.testing.assert_close(torch.from_numpy(make_default_boxes(config)), expected, atol=1e-6, rtol=0)


def test_mobilenet_v1_has_the_default_boxes_of_tensorflow():
    """Of `ssd_mobilenet_v1_coco`: 1,917; three on a cell of the first map, six on the others', from 0.2 to 0.95."""
    rows = preset("ssd300-mobilenetv1").feature_maps
    assert [row.rows for row in rows] == [19, 10, 5, 3, 2, 1]
    assert [len(row.box_sizes) for row in rows] == [3, 6, 6, 6, 6, 6]
    assert sum(row.num_default_boxes for row in rows) == 1917
    first = [(30, 30), (60 * 2**0.5, 60 / 2**0.5), (60 / 2**0.5, 60 * 2**0.5)]
    assert [value for pair in rows[0].box_sizes for value in pair] == pytest.approx([v for pair in first for v in pair])
    assert [row.box_sizes[0][0] / 300 for row in rows[1:]] == pytest.approx([0.35, 0.5, 0.65, 0.8, 0.95])
    assert rows[1].box_sizes[5][0] ** 2 == pytest.approx(0.35 * 0.5 * 300**2)


# --- the list ---


def test_a_group_of_presets_stands_together():
    groups = [group for group, _ in groupby(known.group for known in PRESETS.values())]
    assert len(groups) == len(set(groups)) > 1


@pytest.mark.parametrize("name", PRESETS)
def test_those_that_average_when_they_resize_may_decode_at_reduced_size(name):
    config = preset(name)
    assert config.draft_decoding == (config.resize == "antialias") == ("vgg16" not in name)


def test_no_two_presets_are_the_same_detector():
    configs = [dataclasses.replace(preset(name), name="") for name in PRESETS]
    assert all(one != other for place, one in enumerate(configs) for other in configs[:place])


def test_the_table_of_the_documents_is_what_the_presets_are():
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in page.splitlines() if "| `ssd" in line]
    assert [row[0] for row in rows] == [f"`{name}`" for name in PRESETS]
    for (name, known), (_, parameters, gmac, boxes, time, published) in zip(PRESETS.items(), rows, strict=True):
        assert parameters == f"{known.parameters:,}"
        assert float(gmac) == known.gmac
        assert boxes == f"{preset(name).num_default_boxes:,}"
        assert float(time) > 0
        figures = re.findall(r"\d+(?:\.\d+)?(?= mAP| AP)", published)
        assert figures == re.findall(r"(?<=VOC |OCO )\d+(?:\.\d+)?", known.published)
