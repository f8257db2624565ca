"""Explain mistakes in a command line, with our words for users who come from another tool."""

import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    ValidationError,
)

from multibox.cli.arguments import UsageError

COMMAND_WORDS = {
    "detect": ("predict", "infer", "inference", "detection", "run"),
    "evaluate": ("eval", "val", "validate", "validation", "test", "score"),
    "train": ("fit", "finetune", "fine-tune", "training", "resume"),
    "models": ("list", "ls", "presets", "zoo", "weights"),
    "convert": ("import",),
}
"""Commands of ours, and what other tools call them."""

FLAG_WORDS = {
    "--batch-size": ("--batch", "--bs", "--batchsize", "--train-batch-size"),
    "--class-agnostic": ("--agnostic", "--agnostic-nms"),
    "--classes": ("--class", "--filter-classes"),
    "--device cuda": ("--gpu", "--gpus", "--cuda"),
    "--epochs": ("--epoch", "--num-epochs", "--max-epochs"),
    "--iou": ("--iou-thres", "--iou-threshold", "--nms", "--nms-threshold", "--overlap"),
    "--csv FILE": ("--save-csv", "--save-conf", "--output-csv"),
    "--json FILE": ("--save-json", "--output-json"),
    "--learning-rate": ("--lr", "--lr0", "--base-lr"),
    "--max-detections": ("--max-det", "--limit", "--topk", "--top-k"),
    "--merge weighted": ("--voting", "--box-voting", "--wbf", "--weighted"),
    "--model": ("--weights", "--checkpoint", "--ckpt", "--cfg", "--arch", "--preset"),
    "--out FOLDER": (
        *("--save", "--save-dir", "--save-img", "--project", "--output", "--output-dir", "--name", "--dest"),
        *("--show", "--view-img", "--visualize", "--plots"),
    ),
    "--overwrite": ("--exist-ok", "--force"),
    "--patience": ("--early-stopping",),
    "--precision bf16": ("--amp", "--fp16", "--half", "--bf16"),
    "--recipe": ("--optimizer", "--optim", "--hyp"),
    "--save-labels yolo": ("--save-txt", "--autolabel", "--auto-label", "--save-hybrid"),
    "--score": ("--conf", "--conf-thres", "--confidence", "--threshold", "--score-threshold"),
    "--size": ("--imgsz", "--img", "--img-size", "--image-size", "--input-size", "--resolution"),
    "--start-from imagenet": ("--pretrained", "--backbone-weights"),
    "--workers": ("--num-workers", "--threads"),
}
"""Flags of ours, and what other tools call them."""

POSITIONAL_WORDS = {"--source", "--input", "--images", "--image", "--data", "--dataset", "--data-dir", "--root"}
"""Flags of other tools for arguments that follow our commands without a flag."""


KEYS = {
    "source",
    "data",
    "task",
    "mode",
    "imgsz",
    "batch",
    "conf",
    "lr0",
    "optimizer",
    "project",
    "save",
    "save_txt",
    "show",
}
"""Keys of tools whose options have the form `key=value`, beside those that are flags of ours as well."""


def check_no_keys(tokens: Sequence[str], app: App, examples: Mapping[str, str]) -> None:
    """Checks that no argument is an option in the form `key=value` of another tool.

    Raises:
        UsageError: There is one, and no file of that name.
    """
    if not tokens or tokens[0] not in examples:
        return
    keyed = [token for before, token in pairwise(tokens) if "=" in token and not before.startswith("-")]
    known = KEYS | {flag.removeprefix("--") for flag in _flags(app, tokens[0])} if keyed else KEYS
    for token in keyed:
        key, _, value = token.partition("=")
        if key in known and not os.path.lexists(token):
            flag = f"--{key.replace('_', '-')}"
            ours = _our_flag(flag)
            written = value if flag in POSITIONAL_WORDS else ours if " " in ours else f"{ours} {value}"
            raise UsageError(f"'{token}' is not an option here; write {written}, as in: {examples[tokens[0]]}")


def explain_mistake(mistake: CycloptsError, app: App, examples: Mapping[str, str]) -> str:
    """Returns what is wrong with a command line, and what the user may have meant.

    Args:
        mistake: The error that the parser of the command line raised.
        app: The parser, which knows the flags of all commands.
        examples: A correct command line for each command.
    """
    chain = mistake.command_chain or ()
    command = chain[0] if chain else None
    example = examples.get(command) if command else None
    if isinstance(mistake, UnknownCommandError) and mistake.unused_tokens:
        word = mistake.unused_tokens[0]
        for ours, words in COMMAND_WORDS.items():
            if word in words:
                return f"there is no command '{word}'; it is called {ours} here, such as {examples[ours]}"
    if isinstance(mistake, UnknownOptionError) and command and example:
        flag = (mistake.token.keyword or mistake.token.value).partition("=")[0]
        return _explain_flag(flag, command, app, example, list(examples)) or _one_line(mistake)
    if isinstance(mistake, CoercionError) and mistake.token is not None and mistake.target_type in (int, float):
        number = "a whole number" if mistake.target_type is int else "a number"
        return f"{mistake.token.keyword} must be {number}, but is {mistake.token.value}"
    if isinstance(mistake, ValidationError) and mistake.argument is not None and mistake.argument.tokens:
        token = mistake.argument.tokens[0]
        return f"{token.keyword or mistake.argument.name} {mistake.exception_message}, but is {token.value}"
    if type(mistake) is MissingArgumentError and mistake.argument is not None and example:
        if mistake.keyword is None:
            return f"{mistake.argument.name} is missing; for example: {example}"
        return f"{mistake.keyword} needs a value after it; multibox {command} --help says which"
    return _one_line(mistake)


def _explain_flag(flag: str, command: str, app: App, example: str, commands: Sequence[str]) -> str | None:
    """Returns what an unknown flag is called here, or which command has it; None if it is like none."""
    known = _flags(app, command)
    ours = _our_flag(flag)
    if ours.split()[0] in known:
        return f"there is no option {flag}; it is called {ours} here"
    if flag in POSITIONAL_WORDS:
        return f"there is no option {flag}; the path stands without one, such as {example}"
    owners = [other for other in commands if other != command and ours.split()[0] in _flags(app, other)]
    if owners:
        called = "" if ours == flag else f", where it is called {ours}"
        joined = " and ".join(filter(None, (", ".join(owners[:-1]), owners[-1])))
        return f"there is no option {flag} in {command}; it belongs to {joined}{called}"
    near = get_close_matches(flag, known, n=1, cutoff=0.7)
    return f"Unknown option: {flag}. " + (f"Did you mean {near[0]}?" if near else f"See multibox {command} --help.")


def _our_flag(flag: str) -> str:
    """Returns what a flag of another tool is called here, or the flag itself if it is not known."""
    return next((name for name, words in FLAG_WORDS.items() if flag in words), flag)


def _flags(app: App, command: str) -> set[str]:
    """Returns the flags of a command."""
    arguments = app[command].assemble_argument_collection()
    return {name for argument in arguments for name in argument.names if name.startswith("--")}


def _one_line(mistake: CycloptsError) -> str:
    return re.sub(r"\s*\n\s*", " ", str(mistake))
