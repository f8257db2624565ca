import dataclasses
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from multibox.config import DetectorConfig, Selection
from multibox.default_boxes import make_default_boxes
from multibox.presets import FIGURE_CLASSES, PRESETS, paper_box_sizes, paper_sizes, preset
from multibox.ssd.network import SSD

EVERY_PRESET = [(name, scales) for name in PRESETS for scales in ("voc", "coco")]


def network_without_numbers(config: DetectorConfig, *, classes: int) -> SSD:
    """All the shapes of the real one, in no time."""
    with torch.device("meta"):
        return SSD(config, classes=classes).eval()


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
        assert parameters(network_without_numbers(preset(name, scales=scales), classes=classes)) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_says_of_itself_is_counted(name):
    known, config = PRESETS[name], preset(name)
    network = network_without_numbers(config, classes=FIGURE_CLASSES)
    assert parameters(network) == known.parameters
    with FlopCounterMode(display=False) as counter:
        network(images_without_numbers(config))
    # the counter takes a multiplication and an addition as two
    assert counter.get_total_flops() / 2e9 == pytest.approx(known.gmac, rel=2e-3)
    assert config.name == name


@pytest.mark.parametrize("name, scales", EVERY_PRESET)
def test_rows_of_a_preset_are_the_maps_of_its_network(name, scales):
    config = preset(name, scales=scales)
    network = network_without_numbers(config, classes=3)
    shapes = {}
    for layer, head in network.logits.items():
        head.register_forward_pre_hook(lambda _, sources, layer=layer: shapes.update({layer: sources[0].shape[2:]}))
    offsets, logits = network(images_without_numbers(config))
    assert shapes == {row.layer: (row.rows, row.columns) for row in config.feature_maps}
    assert offsets.shape == (1, config.default_boxes, 4) and logits.shape == (1, config.default_boxes, 4)
    assert len(make_default_boxes(config)) == config.default_boxes


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
        assert [row.default_boxes for row in rows] == counts
        assert [row.offset for row in rows] == [0.5] * len(rows)


def test_source_layers_have_the_papers_names_and_only_conv4_3_is_normalised():
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
        assert config.selection == Selection(
            score_threshold=0.01, overlap_threshold=0.45, suppression="by-class", limit_per_class=400, limit=200
        )


@pytest.mark.parametrize("name, side", [("ssd300-vgg16", 300), ("ssd512-vgg16", 512), ("ssd256-tiny", 256)])
def test_scales_differ_in_the_boxes_only(name, side):
    voc, coco = preset(name, scales="voc"), preset(name, scales="coco")
    assert (voc.height, voc.width) == (side, side)
    assert voc != coco
    assert preset(name) == {"voc": voc, "coco": coco}[PRESETS[name].scales]
    rows = [dataclasses.replace(row, box_sizes=()) for row in voc.feature_maps]
    assert rows == [dataclasses.replace(row, box_sizes=()) for row in coco.feature_maps]
    assert dataclasses.replace(voc, feature_maps=()) == dataclasses.replace(coco, feature_maps=())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("sd300-vgg16", "no preset is called 'sd300-vgg16'; did you mean 'ssd300-vgg16'?"),
        ("ssd512", "no preset is called 'ssd512'; did you mean 'ssd512-vgg16'?"),
        ("tiny", "no preset is called 'tiny'; did you mean 'ssd256-tiny'?"),
        ("yolo", "no preset is called 'yolo'; there are ssd256-tiny, ssd300-vgg16, ssd512-vgg16"),
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


@pytest.mark.parametrize(
    "values, message",
    [
        ({"score_threshold": -0.1}, "score_threshold must be from 0 to 1, but is -0.1"),
        ({"score_threshold": 1.5}, "score_threshold must be from 0 to 1, but is 1.5"),
        ({"overlap_threshold": float("nan")}, "overlap_threshold must be from 0 to 1, but is nan"),
        ({"limit": 0}, "limit must be at least 1, but is 0"),
        ({"limit_per_class": -1}, "limit_per_class must be at least 1, but is -1"),
    ],
)
def test_selection_refuses_what_has_no_meaning(values, message):
    with pytest.raises(ValueError, match=message):
        Selection(**values)


def test_selection_refuses_a_suppression_that_does_not_exist():
    selection = Selection()
    object.__setattr__(selection, "suppression", "never")  # past the tests' own type checks
    with pytest.raises(
        ValueError, match=r"suppression must be one of \('by-class', 'across-classes'\), but is 'never'"
    ):
        selection.__post_init__()


def test_selection_takes_the_borders():
    for border in (0, 1):
        assert Selection(score_threshold=border, overlap_threshold=border).score_threshold == border


def test_but_refuses_the_same():
    with pytest.raises(ValueError, match="limit must be at least 1, but is 0"):
        Selection().but(limit=0)


def test_but_changes_what_is_given_and_nothing_else():
    selection = Selection(score_threshold=0.2, overlap_threshold=0.5, limit_per_class=7, limit=9)
    assert selection.but() == selection
    changed = selection.but(score_threshold=0.0, suppression="across-classes", limit=3)
    assert changed == Selection(0.0, 0.5, "across-classes", 7, 3)
    assert selection == Selection(0.2, 0.5, "by-class", 7, 9)
