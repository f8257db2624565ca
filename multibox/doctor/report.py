"""The report of an examination: findings by kind, as text and as JSON."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from multibox.doctor.kinds import GRADES, KINDS, Grade
from multibox.doctor.survey import Advice, Finding, Survey
from multibox.messages import counted

WIDTH = 80
"""Columns of the text."""

EXAMPLES = 3
"""Findings of a kind that the text shows."""


@dataclass(frozen=True, eq=False)
class Report:
    """What was found in a data set.

    Attributes:
        survey: The data set as it was looked at.
        findings: Everything that was found, in the order of the table of kinds.
        looked_for: Identifiers of the kinds that were looked for.
        advice: For some kinds, sentences about all of their findings together.
        model: Name of the detector that the data were judged for; "" for none.
        seconds: How long it took.
    """

    survey: Survey
    findings: Sequence[Finding]
    looked_for: Sequence[str]
    advice: Sequence[Advice]
    model: str
    seconds: float

    @cached_property
    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings of each kind: errors first, then warnings, then notes."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.kind, []).append(finding)
        return {
            kind: groups[kind] for grade in GRADES for kind in KINDS if KINDS[kind].grade == grade and kind in groups
        }

    def count(self, grade: Grade) -> int:
        """Returns the number of findings of a grade."""
        return sum(KINDS[finding.kind].grade == grade for finding in self.findings)

    @property
    def fixable(self) -> tuple[Finding, ...]:
        """The findings that `--fix` mends."""
        return tuple(finding for finding in self.findings if KINDS[finding.kind].fixable)

    def to_json(self) -> str:
        """Returns everything as a JSON object; docs/check.md describes it."""
        return json.dumps(
            {
                "data": str(self.survey.path),
                "format": self.survey.format,
                "splits": {
                    split.name: {
                        "images": len(split),
                        "objects": len(split.labels),
                        "classes": dict(zip(split.class_names, split.counts().tolist(), strict=True)),
                    }
                    for split in self.survey.splits.values()
                },
                "model": self.model or None,
                "seconds": round(self.seconds, 2),
                "counts": {grade: self.count(grade) for grade in GRADES},
                "looked_for": list(self.looked_for),
                "kinds": [
                    KINDS[kind]._asdict()
                    | {
                        "fixable": KINDS[kind].fixable,
                        "count": len(findings),
                        "advice": [each.text for each in self.advice if each.kind == kind],
                        "findings": [
                            {
                                "where": finding.where,
                                "file": finding.file,
                                "object": finding.object,
                                "split": finding.split or None,
                                "value": finding.value,
                            }
                            for finding in findings
                        ],
                    }
                    for kind, findings in self.by_kind.items()
                ],
            },
            ensure_ascii=False,
            indent=1,
        )

    def to_text(self) -> str:
        """Returns the report as text of `WIDTH` columns; names of files may be longer."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from _wrapped(f"{self.survey.path}: {self.survey.format}; {self._sizes()}")
        for grade in GRADES:
            kinds = [kind for kind in self.by_kind if KINDS[kind].grade == grade]
            if kinds:
                yield ""
                yield f"{grade.upper()}S"
            for kind in kinds:
                yield ""
                yield from self._kind_lines(kind)
        yield ""
        yield from _wrapped(self.summary())

    def _sizes(self) -> str:
        return "; ".join(
            f"{split.name}: {counted(len(split), 'image')}, {counted(len(split.labels), 'object')}"
            for split in self.survey.splits.values()
        )

    def _kind_lines(self, kind: str) -> Iterator[str]:
        entry, findings = KINDS[kind], self.by_kind[kind]
        yield from _wrapped(f"{len(findings)} x {kind}: {entry.title}")
        for finding in findings[:EXAMPLES]:
            yield from _wrapped(f"{self._place(finding)}: {finding.value}", "    ")
        if len(findings) > EXAMPLES:
            yield f"    ... and {len(findings) - EXAMPLES} more"
        for advice in self.advice:
            if advice.kind == kind:
                yield from _wrapped(advice.text, "  = ")
        yield from _wrapped(entry.consequence, "  ! ")
        yield from _wrapped(entry.remedy + (f" --fix: {entry.fixed}." if entry.fixable else ""), "  > ")

    def _place(self, finding: Finding) -> str:
        """Returns where a finding is, without the folder of the data set."""
        root = f"{self.survey.path}/"
        if finding.where == str(self.survey.path):
            return finding.split or "all splits"
        return finding.where.removeprefix(root)

    def summary(self) -> str:
        """Returns the counts in a sentence."""
        counts = ", ".join(counted(self.count(grade), grade) for grade in GRADES)
        fixable = f"; --fix mends {len(self.fixable)}" if self.fixable else ""
        return f"{counts}{fixable}; {len(self.looked_for)} kinds looked for in {self.seconds:.1f} s"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent) + ("" if indent.strip() else "  "),
        break_long_words=False,
        break_on_hyphens=False,
    )
