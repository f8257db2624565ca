"""The runtime of a detector whose network is in memory: network, then postprocessing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("networks need torch: pip install 'multibox[train]'", name="torch") from error

from multibox.config import DetectorConfig, Postprocess
from multibox.runtimes.runtime import Found
from multibox.ssd.coder import BoxCoder
from multibox.ssd.network import SSD
from multibox.ssd.postprocess import postprocess


class TorchRuntime:
    """A network of torch, on whichever device it is."""

    def __init__(self, config: DetectorConfig, network: SSD) -> None:
        self.network = network
        self._config = config
        self._coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)

    def __call__(
        self, inputs: Shaped[np.ndarray, "batch 3 height width"], *, settings: Postprocess, labels: Sequence[int] | None
    ) -> list[Found]:
        """The detections of each image of a batch; each layer of the network is left in the mode it was in."""
        network = self.network
        training = [layer for layer in network.modules() if layer.training]
        network.eval()
        try:
            with torch.inference_mode():
                offsets, logits = network(torch.from_numpy(inputs).to(network.default_boxes.device))
                picked = [
                    postprocess(
                        *row,
                        network.default_boxes,
                        self._coder,
                        settings=settings,
                        scoring=self._config.scoring,
                        clip_boxes=self._config.clip_boxes,
                        labels=labels,
                    )
                    for row in zip(offsets, logits, strict=True)
                ]
        finally:
            for layer in training:
                layer.training = True
        return [Found(*(values.cpu().numpy() for values in one)) for one in picked]
