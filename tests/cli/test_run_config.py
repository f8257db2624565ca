"""Tests that a `config.yaml` from anywhere is safe to read, and that every complaint names it."""

from pathlib import Path

import pytest

from multibox.cli.arguments import UsageError
from multibox.cli.run_config import read_config
from tests.data.test_hostile import ANCHORS, LAUGHS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LAUGHS}\nfreeze: *a8", ANCHORS),
        ("base: {<<: {epochs: 3}}", "merge keys"),
        ("epochs: 3\nepochs: 4", "the key 'epochs' is there twice"),
        (f"freeze: {'[' * 50_000}", "too many lists or tables in one another"),
        (f"freeze: {'[' * 100}{']' * 100}", "freeze must be a list of texts"),
        ("epochs: 2026-13-45", "month must be in 1..12"),
        (f"epochs: {'9' * 4000}", "epochs must be .*, but is a number of over 3,000 digits"),
        (f"epochs: {'9' * 5000}", "a value without quotes has 5000 characters"),
        (f"epochs: 0x1{'0' * 4000}", "epochs must be .*, but is a number of over 3,000 digits"),
        (f"steps: 0x1{'0' * 4000}", r"steps must be at most 10\*\*18, but is a number of over 3,000 digits"),
        (f"size: 0x1{'0' * 4000}", "size must be a text, but is a number of over 3,000 digits"),
        (f"? 0x1{'0' * 4000}\n: 3", "a run has no value a number of over 3,000 digits"),
        (f"epochs: 3\n{'# ' * 500_000}", "it has 1,000,010 bytes, more than 1,000,000"),
        ("steps: [", r"the YAML cannot be read: while parsing .* \(line 1, column 9\)"),
        ("steps: \0", "the YAML cannot be read: unacceptable character"),
        ("steps: !!python/object/apply:os.abort []", "could not determine a constructor"),
        ("epochs: .nan", "epochs must be above 0, but is nan"),
        ("epochs: -1", "epochs must be above 0, but is -1"),
        ("seed: -1", r"seed must be from 0 to 2\*\*63 - 1, but is -1"),
        ("milestones: [280000, 360000]", "milestones must rise between 0 and 1"),
    ],
    ids=range(20),
)
def test_a_file_that_cannot_be_read_is_named_in_one_sentence(tmp_path: Path, text: str, message: str):
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        read_config(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert said.isprintable() and len(said) < len(str(file)) + 500


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match=r"none\.yaml: the YAML cannot be read: No such file"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_config(tmp_path)
