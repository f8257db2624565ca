"""The runtime of a detector whose network is in memory: network, then postprocessing."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("networks need torch: pip install 'multibox[train]'", name="torch") from error

from multibox.config import DetectorConfig, Postprocess, Scales
from multibox.presets import input_size, ssd_on
from multibox.runtimes.runtime import Found
from multibox.ssd.backbones import measure_timm
from multibox.ssd.coder import BoxCoder
from multibox.ssd.network import SSD, copy_classes
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


def create_network(config: DetectorConfig, *, num_classes: int, seed: int | None = None) -> SSD:
    """A network with random weights; a seed always gives the same, and leaves torch's own random state as it is."""
    if seed is None:
        return SSD(config, num_classes=num_classes).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SSD(config, num_classes=num_classes).eval()


def timm_config(
    model: str, *, scales: Scales | None = None, height: int | None = None, width: int | None = None
) -> DetectorConfig:
    """The config of an SSD on a backbone of timm, `timm/NAME`, which says its mean and scale itself.

    Raises:
        ImportError: timm is not installed.
        ValueError: It has no such model, or one that does not take such an input.
    """
    height, width = input_size(height, width, 300)
    measured = measure_timm(model.removeprefix("timm/"), height, width)
    return ssd_on(
        model,
        measured.strides,
        measured.grids,
        scales or "voc",
        head="separable",
        height=height,
        width=width,
        mean=measured.mean,
        scale=measured.scale,
    )


def load_network(config: DetectorConfig, tensors: Mapping[str, np.ndarray], *, num_classes: int) -> SSD:
    """A network with these weights.

    Raises:
        ValueError: Tensors are missing, left over or of another shape than the config says.
    """
    with torch.device("meta"):
        wanted = {key: tuple(tensor.shape) for key, tensor in SSD(config, num_classes=num_classes).state_dict().items()}
    found = {key: tensor.shape for key, tensor in tensors.items()}
    if wanted != found:
        wrong = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
        first, do = wrong[0], "s do" if len(wrong) > 1 else " does"
        raise ValueError(
            f"{len(wrong)} tensor{do} not fit '{config.name}' with {num_classes} classes; "
            f"the first is '{first}': {found.get(first, 'missing')}, expected {wanted.get(first, 'none of that name')}"
        )
    network = SSD(config, num_classes=num_classes)
    network.load_state_dict({key: torch.from_numpy(np.array(tensor)) for key, tensor in tensors.items()})
    return network.eval()


def start_backbone(network: SSD, tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Gives the network's backbone these weights; the keys of those that it keeps its own of.

    Raises:
        ValueError: A tensor is not one of the backbone's.
    """
    state = network.backbone.state_dict()
    for key, tensor in tensors.items():
        if key not in state or state[key].shape != tensor.shape:
            expected = tuple(state[key].shape) if key in state else "none of that name"
            raise ValueError(f"the backbone's '{key}' is {tensor.shape} in the weights, expected {expected}")
        state[key].copy_(torch.from_numpy(np.array(tensor)))
    # older files have no such counts
    return [key for key in state if key not in tensors and not key.endswith("num_batches_tracked")]


def tensors_of(network: SSD, *, half: bool = False) -> dict[str, np.ndarray]:
    """The network's weights by state-dict key, decimal ones in half precision if asked for."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    return {
        key: (tensor.half() if half and tensor.is_floating_point() else tensor).numpy()
        for key, tensor in tensors.items()
    }


def network_with_classes(
    config: DetectorConfig, network: SSD, kept: Sequence[int | None], *, seed: int | None = None
) -> SSD:
    """A copy of the network for `len(kept)` classes: each starts from the class with that label, or anew for `None`."""
    other = create_network(config, num_classes=len(kept), seed=seed)
    copy_classes(network, other, kept)
    return other.to(network.default_boxes.device)
