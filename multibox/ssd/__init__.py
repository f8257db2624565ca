"""The concepts of the paper, one in each file: coder, matching, loss, network, postprocessing."""

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("networks need torch: pip install 'multibox[train]'", name="torch") from error
