"""The runtime of a network in memory: its device, precision and order of tensors in memory."""

import copy
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int, Shaped

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("networks need torch: pip install 'multibox[train]'", name="torch") from error

from multibox.config import DetectorConfig, Postprocess
from multibox.messages import shortened
from multibox.postprocess import NormalizedDetections
from multibox.runtimes.precision import Precision, faster_precision, has_bf16
from multibox.runtimes.runtime import RawOutputs
from multibox.ssd.convolution import folded
from multibox.ssd.network import SSD, Predictions
from multibox.ssd.postprocess import postprocess

_log = logging.getLogger(__name__)


class TorchRuntime:
    """Runs an `SSD` in evaluation mode, on the device where it is.

    It never changes the mode or the weights of the network, so that several threads may share it. A network in training
    mode is run through a copy in evaluation mode that shares its weights.

    Attributes:
        network: The network.
        precision: `fp32`, or `bf16` for its convolutions.
        prepares: False: a call takes resized images.
    """

    prepares = False

    def __init__(self, config: DetectorConfig, network: SSD, *, private: bool = False) -> None:
        """Makes the runtime of a network.

        Args:
            config: Config of the detector.
            network: The network.
            private: Whether nobody else holds the network, so that its weights cannot change. A folded copy of it is
                run, until `share`.
        """
        self.network = network
        self.precision: Precision = "fp32"
        self._config = config
        self._private, self._compiled = private, False
        self._run: Callable[[Tensor], Predictions] | None = None  # is made when the network is first run

    def __call__(
        self,
        inputs: Shaped[np.ndarray, "batch 3 height width"],
        *,
        settings: Postprocess,
        labels: Sequence[int] | None = None,
        merged_labels: Int[np.ndarray, " classes"] | None = None,
        score_thresholds: Float[np.ndarray, " detector_classes"] | None = None,
    ) -> RawOutputs | list[NormalizedDetections]:
        """Returns the raw outputs, or, on CUDA, the detections of each image."""
        run, table = self._run, self.network.default_boxes
        if run is None:
            run = self._run = self._make_run()
        if not self._private and any(layer.training for layer in self.network.modules()):
            run = _evaluation_copy(self.network)
        autocast = torch.autocast(table.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with torch.inference_mode():
            with autocast:
                offsets, logits = run(torch.from_numpy(inputs).to(table.device, memory_format=torch.channels_last))
            if table.is_cuda:  # suppression runs there; for a CPU numpy is faster
                rules: dict[str, Any] = {
                    "settings": settings,
                    "labels": labels,
                    "merged_labels": merged_labels,
                    "score_thresholds": score_thresholds,
                }
                return postprocess(offsets, logits, table, self._config, **rules)
        return RawOutputs(*(values.float().cpu().numpy() for values in (offsets, logits, table)))

    def to(
        self, device: str, precision: Precision | Literal["auto"] | None = None, *, compile: bool | None = None
    ) -> None:
        """Moves the network to the device, and stores its weights channels last, which is the fastest for detection.

        Args:
            device: The device by torch's name.
            precision: `fp32`, `bf16`, or `auto` for the faster one, measured on some random inputs. `None` keeps the
                present precision.
            compile: Whether torch compiles the network. `None` keeps the present choice.

        Raises:
            ValueError: There is no such precision, or torch cannot compile here.
        """
        if precision is not None and precision not in (*get_args(Precision), "auto"):
            raise ValueError(f"precision must be 'fp32', 'bf16' or 'auto', but is '{precision}'")
        self.network.to(device).to(memory_format=torch.channels_last)
        if compile is not None:
            self._compiled = compile
        self._run = None
        if precision is not None:
            self.precision = self._faster_precision() if precision == "auto" else precision
        if self._compiled:
            self._compile_now()

    def share(self) -> SSD:
        """Returns the network to someone who may change its weights: from now on it is run itself, not a copy."""
        if self._private:
            self._private, self._run = False, None
        return self.network

    def _make_run(self) -> Callable[[Tensor], Predictions]:
        run = folded(self.network) if self._private else self.network
        # with `freezing`, weights become constants in the layout that the convolutions want
        options: dict[str, Any] | None = {"freezing": True} if self._private else None
        return torch.compile(run, options=options) if self._compiled else run

    def _compile_now(self) -> None:
        """Runs the network on an image, because torch compiles when it is first run.

        Raises:
            ValueError: torch cannot compile here.
        """
        from torch._dynamo.exc import TorchDynamoException

        image = np.zeros((1, 3, self._config.height, self._config.width), np.uint8)
        try:
            self(image, settings=self._config.postprocess)
        except TorchDynamoException as error:
            why = str(error).partition("\n")[0]
            raise ValueError(f"torch cannot compile the network here ({shortened(why)}); leave out compile") from error

    def _faster_precision(self) -> Precision:
        """Returns the precision that takes less time for an image, and logs what was measured."""
        device = self.network.default_boxes.device
        if not has_bf16(device):
            _log.info("precision: fp32, because %s does not compute in bf16", device)
            return "fp32"
        image = np.random.default_rng(0).integers(0, 256, (1, 3, self._config.height, self._config.width), np.uint8)
        self._run = self._make_run()
        runtimes: dict[Precision, TorchRuntime] = {}
        for precision in get_args(Precision):
            runtimes[precision] = copy.copy(self)
            runtimes[precision].precision = precision
        faster, measured = faster_precision(
            {each: partial(runtime, image, settings=self._config.postprocess) for each, runtime in runtimes.items()}
        )
        _log.info("precision: %s, because an image takes %s", faster, measured)
        return faster


def _evaluation_copy(network: SSD) -> SSD:
    """Returns the network in evaluation mode, sharing all tensors with the one that is given."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, tensors).eval()  # deepcopy does not copy the tensors that its memo holds already
