"""multibox models"""

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
    created.add_row("  timm/NAME", "", "", "", "NAME: of timm.list_models()")
    stdout().print(created)
    stdout().print(
        f"The number in a name is the side of the input: train --size takes others, 512 or 240x320 (height x width).\n"
        f"Parameters and GMAC (billion multiply-adds an image) are those with {FIGURE_CLASSES} classes.\n"
        "VOC is mAP on VOC 2007 test, trained on 07+12; COCO is AP. docs/models.md has sources and speed.\n"
    )
    loaded = Table("to load", "size", "license", "published accuracy", "what it is", box=None, padding=(0, 2, 0, 0))
    for name, published in PUBLISHED.items():
        size = f"{published.megabytes:.1f} MB"
        loaded.add_row(name, size, published.license, published.accuracy, published.description)
    loaded.columns[0].min_width = max(map(len, PUBLISHED))
    stdout().print(loaded)
    stdout().print(
        "And hf://owner/name, a repository of the Hugging Face Hub. What does not come with the package is fetched "
        "when it is first used, into MULTIBOX_CACHE, by default ~/.cache/multibox."
    )
    return 0
