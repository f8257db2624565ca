"""The command `multibox benchmark`."""

import json as json_format
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    Count,
    Fraction,
    Overwrite,
    UsageError,
    choose_device,
    fetch_weights,
)
from multibox.cli.output import STANDARD_OUTPUT, check_new
from multibox.cli.terminal import info, stdout

if TYPE_CHECKING:
    from multibox.benchmark.run import Variant

PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")


def benchmark(
    models: Annotated[list[str], Parameter(negative="", group=MODEL)],
    /,
    *,
    precision: Annotated[str, Parameter(group=MODEL)] = "fp32",
    compile: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    beside: Annotated[Literal["torchvision"] | None, Parameter(group=MODEL, show_default="nothing else")] = None,
    score: Annotated[Fraction | None, Parameter(group=MODEL, show_default="the detector's own for evaluation")] = None,
    data: Annotated[Path | None, Parameter(group=DATA, show_default="generated photographs of 500x375")] = None,
    images: Annotated[Count, Parameter(group=DATA)] = 8,
    batch_size: Annotated[Count, Parameter(group=MACHINE)] = 4,
    threads: Annotated[str | None, Parameter(group=MACHINE, show_default="OMP_NUM_THREADS, or all cores")] = None,
    device: Annotated[str, Parameter(group=MACHINE)] = "cpu",
    rounds: Annotated[Count | None, Parameter(group=MACHINE, show_default="3 to 25, in 20 seconds a table")] = None,
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
) -> int:
    """Time detectors beside each other.

    Each is a process of its own. They take turns, so that other work on the machine slows all of them alike. Compare
    the ratios: they are those to the first row.

    Args:
        models: Weights files, exported files, folders of runs, and names of published weights.
        precision: The precisions to measure: fp32, bf16, or both with a comma between them. Exported files have their
            own, but for OpenVINO's.
        compile: Measure weights files compiled by torch too. Compiling takes up to minutes for each.
        beside: Measure torchvision's own detector too, with the weights of the first model that was converted from it.
        score: Keep detections with a score above this.
        data: A folder of images, or a data set, from which images are taken evenly.
        images: The number of images.
        batch_size: Put this many images through the network at once in the table of batches; 1 leaves it out.
        threads: The numbers of threads to measure, with commas between them.
        device: Compute on cpu, cuda or mps; OpenVINO has cpu, gpu and npu.
        rounds: Measure each detector this many times.
        json: Write all numbers to this file; '-' prints them instead of the tables.
        overwrite: Replace the JSON file if it is there already.
    """
    precisions = _precisions(precision)
    numbers = _thread_counts(threads)
    variants = _variants(models, precisions, beside, compile=compile)
    read = [*(variant.path for variant in variants), *([data] if data else [])]
    check_new([json] if json not in (None, STANDARD_OUTPUT) else [], overwrite=overwrite, read=read)

    from multibox.benchmark.machine import facts, headline
    from multibox.benchmark.run import benchmark as run
    from multibox.weights.exported import is_exported, read_header

    choose_device(device, exported=any(is_exported(variant.path) for variant in variants))
    own = {
        path: read_header(path).config.postprocess.score_threshold for path in {variant.path for variant in variants}
    }
    thresholds = own if score is None else dict.fromkeys(own, score)
    about = facts(device)
    with _images(data, images) as paths:
        source = "generated photographs of 500 x 375" if data is None else str(data)
        if json != STANDARD_OUTPUT:
            stdout().print(f"{headline(about)}\n{len(paths)} images: {source}\n")
        measured = []
        for each in run(
            variants,
            paths,
            score_thresholds=thresholds,
            threads=numbers,
            device=device,
            batch_size=batch_size,
            rounds=rounds,
            on_stage=info,
        ):
            measured.append(each.values())
            if json != STANDARD_OUTPUT:
                stdout().print(each.table.markdown())
    result = {
        "machine": about,
        "images": {"source": source, "count": len(paths)},
        "variants": [{**variant._asdict(), "path": str(variant.path)} for variant in variants],
        "tables": measured,
    }
    text = json_format.dumps(result, indent=2, allow_nan=False)
    if json == STANDARD_OUTPUT:
        stdout().print(text)
    elif json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(text + "\n", encoding="utf-8")
        info(f"written to {json}")
    return 0


def _precisions(text: str) -> list[Literal["fp32", "bf16"]]:
    """Returns the precisions of `--precision`."""
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(PRECISIONS):
        raise UsageError(f"--precision takes fp32, bf16 or fp32,bf16, not '{text}'")
    return [precision for precision in PRECISIONS if precision in names]


def _thread_counts(text: str | None) -> list[int]:
    """Returns the numbers of `--threads`."""
    if text is None:
        from multibox.runtimes.cores import count_threads

        return [count_threads()]
    numbers = [number.strip() for number in text.split(",")]
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise UsageError(f"--threads takes whole numbers from 1, such as 4 or 1,2, not '{text}'")
    return [int(number) for number in dict.fromkeys(numbers)]


def _variants(
    models: Sequence[str], precisions: Sequence[Literal["fp32", "bf16"]], beside: str | None, *, compile: bool
) -> list["Variant"]:
    """Returns what is measured: each model in each precision that it can be run in, torchvision's detector first.

    Raises:
        UsageError: A model is named twice, or none was converted from torchvision's.
    """
    from multibox.benchmark.run import Variant
    from multibox.weights.exported import is_exported, read_header

    twice = [model for model, times in Counter(models).items() if times > 1]
    if twice:
        raise UsageError(f"{twice[0]} is named twice")
    paths = {model: fetch_weights(model) for model in models}
    names = {model: _short(model, models) for model in models}
    variants = []
    if beside is not None:
        for path in paths.values():
            origin = read_header(path).provenance.get("converted from", "")
            if origin.startswith("torchvision ") and not is_exported(path):
                variants.append(Variant(origin.replace(" ", "'s ", 1), path, torchvision=True))
                break
        else:
            raise UsageError(
                "--beside torchvision needs a weights file that was converted from torchvision's ssd300_vgg16 or "
                f"ssdlite320_mobilenet_v3_large, and there is none among {', '.join(models)}"
            )
    for model, path in paths.items():
        read_header(path)  # a file that holds no detector is reported before anything is measured
        if is_exported(path) and path.suffix != ".xml":  # only OpenVINO lets the caller choose
            variants.append(Variant(names[model], path))
        else:
            variants += [Variant(f"{names[model]}, {precision}", path, precision) for precision in precisions]
        if compile and not is_exported(path):
            variants += [Variant(f"{names[model]}, {each}, compiled", path, each, True) for each in precisions]
    return variants


def _short(model: str, models: Sequence[str]) -> str:
    """Returns the name of a model's file, or all of the path if another model's file has the same name."""
    names = [Path(each).name for each in models]
    return model if names.count(Path(model).name) > 1 else Path(model).name


@contextmanager
def _images(folder: Path | None, count: int) -> Iterator[list[Path]]:
    """Gives the paths of the images: evenly spaced ones below the folder, or generated ones."""
    from multibox.benchmark.photographs import write_photographs
    from multibox.data.files import list_files
    from multibox.images import IMAGE_SUFFIXES

    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"--data takes a folder, and {folder} is none")
        paths = list_files(folder, IMAGE_SUFFIXES)
        if not paths:
            raise UsageError(f"{folder}: there is no image below it ({', '.join(sorted(IMAGE_SUFFIXES))})")
        count = min(count, len(paths))
        yield [paths[number * len(paths) // count] for number in range(count)]
        return
    with tempfile.TemporaryDirectory() as place:
        write_photographs(Path(place), count)
        yield sorted(Path(place).iterdir())
