"""The command `multibox models`."""

from itertools import groupby

from multibox.cli.terminal import stdout
from multibox.weights.published import PUBLISHED


def models() -> int:
    """List the detectors that can be created or loaded."""
    from rich.table import Table

    from multibox.presets import FIGURE_CLASSES, PRESETS, preset

    created = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    created.add_column("to create", no_wrap=True)
    for header in ("parameters", "GMAC", "boxes"):
        created.add_column(header, justify="right")
    created.add_column("published accuracy")
    for group, presets in groupby(PRESETS.items(), key=lambda item: item[1].group):
        created.add_row(group)
        for name, known in presets:
            created.add_row(
                f"  {name}",
                f"{known.parameters:,}",
                f"{known.gmac:.3g}",
                f"{preset(name).num_default_boxes:,}",
                known.published,
            )
    created.add_row("on a model of timm")
    created.add_row("  timm/NAME", "", "", "", "timm.list_models() has the names")
    stdout().print(created)
    stdout().print(
        "The number in a name is the side of the input in pixels; 'multibox train --size 240x320' takes another one.\n"
        f"Parameters and GMAC (billion multiply-adds an image) are those with {FIGURE_CLASSES} classes.\n"
        "VOC is the mAP on VOC 2007 test after training on 07+12; COCO is AP. docs/models.md has sources and speed.\n"
    )
    loaded = Table("to load", "size", "license", "published accuracy", "what it is", box=None, padding=(0, 2, 0, 0))
    for name, published in PUBLISHED.items():
        size = f"{published.megabytes:.1f} MB"
        loaded.add_row(name, size, published.license, published.accuracy, published.description)
    loaded.columns[0].min_width = max(map(len, PUBLISHED))
    stdout().print(loaded)
    stdout().print(
        "hf://owner/name loads from a repository of the Hugging Face Hub. Weights that do not come with the package "
        "are downloaded when they are first used, to MULTIBOX_CACHE, by default ~/.cache/multibox."
    )
    return 0
