"""The command `multibox export`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from multibox.cli.arguments import DATA, MODEL, OUTPUT, Count, Overwrite, fetch_weights
from multibox.cli.output import check_new
from multibox.cli.terminal import show_log, stdout

MOST_IMAGES = 50
"""Number of images of a data set that the file is compared on."""


def export(
    model: str,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    /,
    *,
    nms: Annotated[Literal["graph", "runtime", "none"], Parameter(group=MODEL)] = "graph",
    raw: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    batch: Annotated[Count | None, Parameter(group=MODEL, show_default="any number")] = None,
    home: Annotated[
        Literal["frigate", "model-api", "jetson", "opencv"] | None, Parameter(name="--for", group=MODEL)
    ] = None,
    data: Annotated[Path | None, Parameter(group=DATA, show_default="synthetic scenes")] = None,
    split: Annotated[str | None, Parameter(group=DATA)] = None,
    overwrite: Overwrite = False,
) -> int:
    """Write a detector as one file for other engines.

    The file is compared with the network before it is written: it must find the same objects.

    Args:
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them).
        out: The file to write. Its suffix says the kind: .onnx.
        nms: Where suppression happens: in the file; in the runtime, from the boxes and scores of all default boxes; or
            there from raw outputs. What 'multibox detect' and 'multibox.load' find is the same.
        raw: Let the file give the raw offsets and logits as well.
        batch: The number of images that the file takes at once.
        home: The program that shall run the file, which then has that program's form. The lines to paste into its
            configuration are printed.
        data: The folder of a data set on whose images the file is compared with the network.
        split: The split of the data set.
        overwrite: Replace the file if it is there already.
    """
    weights = fetch_weights(model)
    check_new([out], overwrite=overwrite, read=[weights, *([data] if data else [])])

    from multibox.deploy.export import export as run
    from multibox.detector import Detector

    images = None
    if data is not None:
        from multibox.cli.data import choose_split, read_splits
        from multibox.data import DatasetReader
        from multibox.data.read import EVALUATION_SPLITS

        reader = DatasetReader(data)
        (dataset,) = read_splits(reader, [choose_split(reader, split, EVALUATION_SPLITS, "--split")], "skip")
        step = -(-len(dataset) // MOST_IMAGES)
        images = [sample.open() for sample in dataset[::step]]
    out.parent.mkdir(parents=True, exist_ok=True)
    with show_log():
        proof = run(Detector.load(model), out, suppression=nms, raw=raw, batch=batch, home=home, images=images)
    stdout().print(f"compared with the network: {proof}")
    stdout().print(f"written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if home is not None:
        from multibox.deploy.homes import HOMES
        from multibox.weights.exported import read_header

        header = read_header(out)
        config = header.config
        stdout().print(f"\nfor {HOMES[home].title}:\n")
        stdout().print(HOMES[home].advice(out, header.class_names, config.height, config.width))
    return 0
