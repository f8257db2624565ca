"""Explain mistakes in a command line, with our words for users who come from another tool."""

import re
from collections.abc import Mapping

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError, UnknownOptionError, ValidationError

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
    "--json": ("--save-json", "--save-txt", "--output-json"),
    "--learning-rate": ("--lr", "--lr0", "--base-lr"),
    "--max-detections": ("--max-det", "--limit", "--topk", "--top-k"),
    "--model": ("--weights", "--checkpoint", "--ckpt", "--cfg", "--arch", "--preset"),
    "--out": ("--save", "--save-dir", "--project", "--output", "--output-dir", "--name", "--dest"),
    "--overwrite": ("--exist-ok", "--force"),
    "--patience": ("--early-stopping",),
    "--precision bf16": ("--amp", "--fp16", "--half", "--bf16"),
    "--recipe": ("--optimizer", "--optim", "--hyp"),
    "--score": ("--conf", "--conf-thres", "--confidence", "--threshold", "--score-threshold"),
    "--size": ("--imgsz", "--img", "--img-size", "--image-size", "--input-size", "--resolution"),
    "--start-from imagenet": ("--pretrained", "--backbone-weights"),
    "--workers": ("--num-workers", "--threads"),
}
"""Flags of ours, and what other tools call them."""

POSITIONAL_WORDS = {"--source", "--input", "--images", "--image", "--data", "--dataset", "--data-dir", "--root"}
"""Flags of other tools for arguments that follow our commands without a flag."""


def explain(mistake: CycloptsError, examples: Mapping[str, str]) -> str:
    """Returns what is wrong with a command line, and what the user may have meant.

    Args:
        mistake: The error that the parser of the command line raised.
        examples: A correct command line for each command.
    """
    chain = mistake.command_chain or ()
    example = examples.get(chain[0]) if chain else None
    if isinstance(mistake, UnknownCommandError) and mistake.unused_tokens:
        word = mistake.unused_tokens[0]
        for command, words in COMMAND_WORDS.items():
            if word in words:
                return f"there is no command '{word}'; it is called {command} here, such as {examples[command]}"
    if isinstance(mistake, UnknownOptionError):
        flag = (mistake.token.keyword or mistake.token.value).partition("=")[0]
        known = {name for argument in mistake.argument_collection for name in argument.names}
        for ours, words in FLAG_WORDS.items():
            if flag in words and ours.split()[0] in known:
                return f"there is no option {flag}; it is called {ours} here"
        if flag in POSITIONAL_WORDS and example:
            return f"there is no option {flag}; the path stands without one, such as {example}"
    if isinstance(mistake, ValidationError) and mistake.argument is not None and mistake.argument.tokens:
        token = mistake.argument.tokens[0]
        return f"{token.keyword or mistake.argument.name} {mistake.exception_message}, but is {token.value}"
    if type(mistake) is MissingArgumentError and mistake.argument is not None and mistake.keyword is None and example:
        return f"{mistake.argument.name} is missing; for example: {example}"
    return re.sub(r"\s*\n\s*", " ", str(mistake))
