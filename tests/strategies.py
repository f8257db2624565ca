"""Boxes for hypothesis, of any size and position in an image of 1000 x 1000 pixels."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

settings.register_profile("multibox", deadline=None)  # a test does not fail because the machine is busy
settings.load_profile("multibox")

SIDE = 1000.0


@st.composite
def boxes(draw: st.DrawFn, *, min_count: int = 0, max_count: int = 8, min_side: float = 0.0) -> np.ndarray:
    """Draws boxes in corner form, shape (count, 4), float64, between 0 and 1000, with sides of at least `min_side`.

    Tiny sides make quotients ill-conditioned: pass `min_side=1` if a test divides by them.
    """
    count = draw(st.integers(min_count, max_count))
    numbers = st.floats(0, 1, width=32)
    low, part = (draw(arrays(np.float64, (count, 2), elements=numbers)) for _ in range(2))
    low = low * (SIDE - min_side)
    size = min_side + part * (SIDE - min_side - low)
    return np.concatenate([low, low + size], axis=1)
