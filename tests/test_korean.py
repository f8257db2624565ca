"""The Korean pages say what the English ones say: the same commands and code, figures, links and pictures."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "README.ko.md", "docs/tour.md": "docs/tour.ko.md"}
DIGITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
WORDS = {word: (str(number),) for number, word in enumerate(DIGITS, 1)} | {"fifth": ("5", "1"), "quarter": ("4", "1")}
"""Numbers that English writes as words, and that Korean may write in digits."""

CODE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)]+)\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code(page: str) -> list[tuple[str, list[str]]]:
    """The language and the lines of each block of code, without comments."""
    return [
        (language, [re.sub(r"\s+#\s.*", "", line) for line in lines.splitlines()])
        for language, lines in CODE.findall(text(page))
    ]


def sections(page: str) -> list[str]:
    """The prose under each heading, without code."""
    return re.split(r"^#+ ", CODE.sub("", text(page)), flags=re.MULTILINE)[1:]


def inline_code(section: str) -> Counter[str]:
    return Counter(re.findall(r"`([^`]+)`", section))


def links(section: str) -> Counter[tuple[str, str]]:
    """Each link and picture. A page may link to the Korean form of the other one's target, or to the other language."""
    return Counter((kind, target.replace(".ko.md", ".md")) for kind, target in LINK.findall(section))


def numbers(section: str) -> Counter[str]:
    return Counter(NUMBER.findall(LINK.sub(" ", re.sub(r"`[^`]+`", "", section))))


def missing_numbers(english: str, korean: str) -> tuple[Counter[str], Counter[str]]:
    """The figures of the English section that the Korean one lacks, and those that only the Korean one has."""
    ours, theirs = numbers(english), numbers(korean)
    words = re.findall(r"[a-z]+", LINK.sub(lambda link: link[0].partition("(")[0], english).lower())
    written = Counter(digits for word in words for digits in WORDS.get(word, ()))
    return ours - theirs, theirs - ours - written


@pytest.mark.parametrize("page", PAGES)
def test_both_have_the_same_commands_and_code(page: str) -> None:
    assert code(page)
    assert code(PAGES[page]) == code(page)


@pytest.mark.parametrize("page", PAGES)
def test_both_have_the_same_sections_with_the_same_figures_links_and_names_of_code(page: str) -> None:
    english, korean = sections(page), sections(PAGES[page])
    assert len(english) == len(korean)
    for ours, theirs in zip(english, korean, strict=True):
        title = f"{PAGES[page]}, {theirs.splitlines()[0]}"
        assert missing_numbers(ours, theirs) == (Counter(), Counter()), title
        assert links(theirs) == links(ours), title
        assert inline_code(theirs) == inline_code(ours), title


@pytest.mark.parametrize("page", PAGES)
def test_each_links_to_the_other_at_its_head(page: str) -> None:
    assert f"[한국어]({Path(PAGES[page]).name})" in text(page)[:200]
    assert f"[English]({Path(page).name})" in text(PAGES[page])[:200]


@pytest.mark.parametrize(
    ("english", "korean", "missing"),
    [
        ("34 of 6,132", "6,132개 중 34개", (0, 0)),
        ("ten minutes, two cores", "코어 두 개로 10분", (0, 0)),
        ("34 of 6,132", "6,132개 중 43개", (1, 1)),
        ("a fifth", "5분의 1", (0, 0)),
        ("some minutes", "10분", (0, 1)),
    ],
)
def test_a_figure_that_differs_is_noticed(english: str, korean: str, missing: tuple[int, int]) -> None:
    assert tuple(counter.total() for counter in missing_numbers(english, korean)) == missing


def test_the_pages_are_in_korean() -> None:
    for page in PAGES.values():
        prose = CODE.sub("", text(page))
        assert len(re.findall("[가-힣]", prose)) > 1000
