"""The command line: one file a command. The only place that prints."""

import io
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from multibox.cli.terminal import UsageError, complain, say_warnings, speaks

_COMMANDS = {
    "demo": "The whole path on synthetic scenes: train, evaluate, detect. No download.",
    "train": "Train a detector on a data set of your own.",
    "evaluate": "Score a detector on a data set.",
    "detect": "Find objects in images.",
    "convert": "Make a weights file of another project one of multibox's.",
    "models": "List the detectors that can be created or loaded.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status.

    0: done. 1: something in the user's files failed. 2: wrong usage. 130: interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    # torch's threads then soon sleep while they wait for each other: where something else runs on the machine, those
    # that go on spinning bring training down to a tenth of its speed
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        with say_warnings():
            return _app()(tokens, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except CycloptsError as error:
        complain(str(error))
        return 2
    except KeyboardInterrupt as error:
        if speaks():  # all processes stop together
            complain(f"interrupted; {error}" if str(error) else "interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stderr.close()
        return 1
    except (UsageError, ValueError, OSError, ImportError) as error:
        if debug:
            traceback.print_exc()
        complain(_text(error))
        return 2 if isinstance(error, UsageError) else 1


def _app() -> App:
    from multibox import __version__

    app = App(
        name="multibox",
        help="SSD: the Single Shot MultiBox Detector. Train, evaluate and run it on images of your own.",
        help_epilogue="multibox COMMAND --help tells more. --debug shows the traceback of an error.",
        version=f"multibox {__version__}",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for name, summary in _COMMANDS.items():
        app.command(f"multibox.cli.{name}:{name}", name=name, help=summary)
    return app


def _text(error: Exception) -> str:
    """The error in words; of the system's own errors without their number."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed: pip install 'multibox[train]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
