from pathlib import Path

from multibox.doctor import KINDS
from tests.doctor.kinds_table import tables

PAGE = Path(__file__).parents[2] / "docs" / "check.md"


def test_the_page_lists_every_kind_as_the_code_has_it():
    page = PAGE.read_text(encoding="utf-8")
    assert tables() in page, "write the tables anew: python -m tests.doctor.kinds_table"
    assert f"{len(KINDS)} kinds" in page
