"""Tables as plain text, for a terminal and for `log.txt`."""

from collections.abc import Sequence

MOST_ROWS = 25
"""Number of classes that a table in the terminal lists; those of more classes end with the number of the others."""

_NAME_COLUMNS = 20


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table: the first column is aligned left and all others right.

    Long texts of the first column are cut, so that seven columns of numbers fit beside it in 80 columns.
    """
    from rich.cells import cell_len, set_cell_size

    lines = [[set_cell_size(row[0], min(cell_len(row[0]), _NAME_COLUMNS)), *row[1:]] for row in (head, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            set_cell_size(cell, width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def class_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table with a row for each class, at most `MOST_ROWS` of them."""
    more = len(rows) - MOST_ROWS
    return text_table(head, rows[:MOST_ROWS]) + ([f"... and {more} more classes"] if more > 0 else [])
