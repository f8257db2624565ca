"""The command line: one file for each command. No other part of the package prints."""

import io
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from cyclopts import App, CycloptsError

from multibox.cli.arguments import UsageError
from multibox.cli.hints import check_no_keys, explain_mistake
from multibox.cli.terminal import error, is_main, plain_warnings


class Command(NamedTuple):
    """A command: its summary in the help, and an example of its use."""

    summary: str
    example: str


COMMANDS = {
    "demo": Command("Train, evaluate and detect on synthetic scenes, without a download.", "multibox demo --minutes 1"),
    "check": Command("Find what is wrong with a data set, and write a mended copy.", "multibox check raccoons/"),
    "train": Command(
        "Train a detector on a data set of your own.",
        "multibox train raccoons/ --model ssd256-tiny --minutes 10 --out runs/raccoons",
    ),
    "evaluate": Command("Score a detector on a data set.", "multibox evaluate raccoons/ --model runs/raccoons"),
    "report": Command(
        "Write a page that says what a detector gets wrong, why, and what to try first.",
        "multibox report runs/raccoons --data raccoons/ --out report/",
    ),
    "coverage": Command(
        "Show how well default boxes cover the objects of a data set, and fit them.",
        "multibox coverage raccoons/ --model ssd256-tiny --fit --out boxes/",
    ),
    "detect": Command(
        "Find objects in images.",
        "multibox detect street/ --model runs/raccoons --out found/",
    ),
    "explain": Command(
        "Show which default box found what in an image, and what training learns from it.",
        "multibox explain street/1.jpg --model runs/raccoons --out explained/",
    ),
    "convert": Command(
        "Convert a weights file of another project to multibox's format.",
        "multibox convert VGG_VOC0712_SSD_300x300.caffemodel ssd300.safetensors",
    ),
    "export": Command(
        "Write a detector as one file for other engines.",
        "multibox export runs/raccoons raccoons.onnx",
    ),
    "benchmark": Command(
        "Time detectors beside each other: engines, precisions, threads.",
        "multibox benchmark runs/raccoons raccoons.onnx --threads 1",
    ),
    "ablate": Command(
        "Ask the paper's questions of your data: what each idea is worth.",
        "multibox ablate raccoons/ --minutes 3 --seeds 3 --out ablation",
    ),
    "runs": Command("List your training runs and their accuracy.", "multibox runs"),
    "models": Command("List the detectors that can be created or loaded.", "multibox models"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    The status is 0 when all is done, 1 when something in the user's files failed, 2 for wrong usage, and 130 when the
    user interrupted the command.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    app, examples = _app(), {name: command.example for name, command in COMMANDS.items()}
    try:
        check_no_keys(tokens, app, examples)
        with plain_warnings():
            return app(tokens, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except CycloptsError as mistake:
        error(explain_mistake(mistake, app, examples))
        return 2
    except KeyboardInterrupt as interrupt:
        if is_main():  # under torchrun all processes stop together
            error(f"interrupted; {interrupt}" if str(interrupt) else "interrupted")
        return 130
    except BrokenPipeError:  # the program that reads our output, such as `head`, has seen enough
        sys.stderr.close()
        return 1
    except (UsageError, ValueError, OSError, ImportError) as failure:
        if debug:
            traceback.print_exc()
        error(_text(failure))
        return 2 if isinstance(failure, UsageError) else 1


def _app() -> App:
    from multibox import __version__

    app = App(
        name="multibox",
        help="SSD, the Single Shot MultiBox Detector. Train, evaluate and run it on images of your own.",
        help_epilogue="'multibox COMMAND --help' tells more. --debug shows the traceback of an error.",
        version=f"multibox {__version__}",
        help_format="markdown",
        suppress_keyboard_interrupt=False,
    )
    for place, (name, (summary, example)) in enumerate(COMMANDS.items()):
        epilogue = f"Example:\n\n{example}"
        app.command(f"multibox.cli.{name}:{name}", name=name, help=summary, help_epilogue=epilogue, sort_key=place)
    return app


EXTRAS = {"onnx": "export", "onnxscript": "export", "onnxruntime": "onnx", "openvino": "openvino"}
"""The extra that brings a package, if it is not `train`."""


def _text(failure: Exception) -> str:
    """Returns the text of an error, without the number that errors of the operating system have."""
    if isinstance(failure, ModuleNotFoundError):
        extra = EXTRAS.get((failure.name or "").partition(".")[0], "train")
        return f"the package {failure.name} is not installed: pip install 'multibox[{extra}]'"
    if isinstance(failure, OSError) and failure.strerror:
        return f"{failure.filename}: {failure.strerror}" if failure.filename else failure.strerror
    return str(failure) or type(failure).__name__
