"""Print the tables of docs/check.md: `python -m tests.doctor.kinds_table`."""

from collections.abc import Iterator

from multibox.doctor.kinds import FAMILIES, KINDS

READS = {
    "labels": "",
    "headers": "headers",
    "pixels": "`--pixels`",
    "model": "`--model`",
    "predictions": "`--predict`, `--folds`",
}


def tables() -> str:
    """Returns a table for each family of kinds."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for family in FAMILIES:
        yield f"### {family}"
        yield ""
        yield "| kind | grade | what is the case | in training | what to do | `--fix` | reads |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for kind in KINDS.values():
            if kind.family == family:
                cells = (kind.grade, kind.title, kind.consequence, kind.remedy, kind.fixed, READS[kind.needs])
                yield f"| `{kind.id}` | {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")
        yield ""


if __name__ == "__main__":
    print(tables(), end="")
