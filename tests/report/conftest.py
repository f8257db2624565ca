"""The small detector of the tests of training."""

from tests.training.conftest import new_detector, small_config

__all__ = ["new_detector", "small_config"]
