"""multibox models"""

from multibox.cli.terminal import stdout
from multibox.weights.published import PUBLISHED


def models() -> int:
    """List the detectors that can be created or loaded."""
    from rich.table import Table

    from multibox.presets import FIGURE_CLASSES, PRESETS, preset

    created = Table(
        "to create",
        "input",
        "parameters",
        "GMAC",
        "default boxes",
        "published accuracy",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for name, known in PRESETS.items():
        config = preset(name)
        created.add_row(
            name,
            f"{config.height} x {config.width}",
            f"{known.parameters:,}",
            f"{known.gmac:.2g}" if known.gmac < 1 else f"{known.gmac:.1f}",
            f"{config.default_boxes:,}",
            known.published,
        )
    stdout().print(created)
    stdout().print(
        f"Parameters and GMAC (thousand million multiplications a picture) are those with {FIGURE_CLASSES} classes.\n"
    )
    loaded = Table("to load", "size", "licence", "what it is", box=None, padding=(0, 2, 0, 0))
    for name, published in PUBLISHED.items():
        loaded.add_row(name, f"{published.path.stat().st_size / 1e6:.1f} MB", published.licence, published.description)
    stdout().print(loaded)
    return 0
