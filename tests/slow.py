"""Mark cases of a test as slow."""

import pytest


def slow(*values: object) -> object:
    """One of several cases that `make test` leaves to `make test-slow`, since another of them is much like it."""
    return pytest.param(*values, marks=pytest.mark.slow)
