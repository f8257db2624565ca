"""Weights on the Hugging Face Hub: a repository holds our weights file and a page that describes it."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from multibox.weights.file import Weights, save_weights

FILE_NAME = "model.safetensors"

_TIMEOUT = 5.0
"""Seconds to wait for an answer of the hub before its cache is used."""


def fetch_from_hub(repository: str) -> Path:
    """Returns the weights file of a repository `owner/name`, fetched into the hub's own cache.

    Without a network the file comes from that cache.

    Raises:
        FileNotFoundError: There is no such repository, or it holds no weights.
        ConnectionError: The hub cannot be reached, and the file was not fetched before.
        ImportError: huggingface-hub is not installed.
        ValueError: The name is not `owner/name`.
    """
    hub = _package()
    _check_name(repository)
    try:
        offline = not _answers(hub, repository)
        path = hub.hf_hub_download(repository, FILE_NAME, library_name="multibox", local_files_only=offline)
    except hub.errors.RepositoryNotFoundError as error:  # the hub gives this answer for private ones too
        raise FileNotFoundError(
            f"hf://{repository}: the hub has no such repository, or it is not open to you (log in: hf auth login)"
        ) from error
    except hub.errors.LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"hf://{repository}: the hub cannot be reached, and its {FILE_NAME} was not fetched before; "
            "is this machine offline?"
        ) from error
    except hub.errors.EntryNotFoundError as error:
        raise FileNotFoundError(
            f"hf://{repository}: the repository has no {FILE_NAME}; push_to_hub of a detector would make one"
        ) from error
    except hub.errors.HfHubHTTPError as error:
        raise ConnectionError(f"hf://{repository}: the hub refuses ({_first_line(error)})") from error
    return Path(path)


def _answers(hub: Any, repository: str) -> bool:
    """Returns whether the hub answers. The package itself tries for half a minute, and logs every try."""
    url = hub.hf_hub_url(repository, FILE_NAME)
    try:
        hub.get_hf_file_metadata(url, timeout=_TIMEOUT, library_name="multibox")
    except hub.errors.HfHubHTTPError:  # an answer; the download says what is wrong
        return True
    except (hub.errors.HTTPError, ConnectionError):
        return False
    return True


def push_to_hub(repository: str, weights: Weights, *, license: str | None, private: bool | None) -> str:
    """Saves the weights to a repository `owner/name`, and returns the address of its page.

    The repository is made if it does not exist. A page (`README.md`) that is there already stays as it is.

    Args:
        repository: Name of the repository, `owner/name`.
        weights: Weights to save.
        license: License to state on a new page, by its name on the hub.
        private: Whether a new repository is private; `None` for the owner's default.

    Raises:
        ConnectionError: The hub cannot be reached, or refuses.
        ImportError: huggingface-hub is not installed.
        ValueError: The name is not `owner/name`.
    """
    hub = _package()
    _check_name(repository)
    api = hub.HfApi(library_name="multibox")
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            save_weights(Path(folder) / FILE_NAME, weights)
            if not api.file_exists(repository, "README.md"):
                (Path(folder) / "README.md").write_text(model_card(repository, weights, license), encoding="utf-8")
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"multibox: {weights.config.name}")
    except (hub.errors.HfHubHTTPError, hub.errors.LocalTokenNotFoundError) as error:
        raise ConnectionError(
            f"{repository}: the hub refuses ({_first_line(error)}); are you logged in (hf auth login), and is it yours?"
        ) from error
    except hub.errors.HTTPError as error:  # an error of httpx: the hub gave no answer
        raise ConnectionError(
            f"{repository}: the hub cannot be reached ({_first_line(error)}); is this machine offline?"
        ) from error
    return str(made)


def model_card(repository: str, weights: Weights, license: str | None) -> str:
    """Returns the page of a repository in Markdown, with the values that the hub reads at its beginning."""
    config, chosen = weights.config, weights.config.postprocess
    head = {"library_name": "multibox", "pipeline_tag": "object-detection", "tags": ["ssd", config.name]}
    if license is not None:
        head["license"] = license
    names = ", ".join(weights.class_names)
    origin = "\n".join(f"- {name}: {text}" for name, text in weights.provenance.items()) or "- not stated"
    lines = [
        "---",
        *(f"{name}: {json.dumps(value)}" for name, value in head.items()),  # JSON is YAML
        "---",
        f"# {repository.partition('/')[2]}",
        "",
        f"An SSD (Single Shot MultiBox Detector) for the Python package `multibox`: `{config.name}`, "
        f"input {config.height} x {config.width}, {config.num_default_boxes:,} default boxes, "
        f"{len(weights.class_names)} classes.",
        "",
        "```python",
        "import multibox",
        "",
        f'detector = multibox.load("hf://{repository}")',
        'for found in detector.detect("image.jpg", score_threshold=0.5):',
        "    print(found.name, found.score, found.box)",
        "```",
        "",
        f"**Classes.** {names}",
        "",
        f"**Postprocessing by default.** Scores above {chosen.score_threshold}; "
        f"suppression {'across classes' if chosen.class_agnostic else 'by class'} at an "
        f"IoU of {chosen.iou_threshold}; at most {chosen.max_detections} detections an image"
        + ("." if chosen.merge == "none" else "; boxes are the score-weighted means of those that they suppress."),
        "",
        "**Where it comes from.**",
        "",
        origin,
        "",
    ]
    return "\n".join(lines)


def _package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ImportError("the hub needs the package huggingface-hub: pip install 'multibox[hub]'") from error
    return huggingface_hub


def _check_name(repository: str) -> None:
    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise ValueError(f"'{repository}' is no repository of the hub; their names have the form owner/name")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
