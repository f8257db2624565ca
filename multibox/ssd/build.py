"""Build networks with their weights: new or loaded, for other classes, or on a backbone of timm."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from multibox.config import DetectorConfig, Scales
from multibox.messages import quoted
from multibox.presets import input_size, ssd_config
from multibox.ssd.backbones import make_backbone, measure_timm
from multibox.ssd.network import SSD

_PER_CLASS = re.compile(r"logits\.\w+\.(pointwise\.)?(weight|bias)")
"""Keys of the tensors whose rows belong to classes."""


def create_network(config: DetectorConfig, *, num_classes: int, seed: int | None = None) -> SSD:
    """Returns a network with random weights.

    Args:
        config: Config of the detector.
        num_classes: Number of classes, the background not counted.
        seed: Seed of the random weights. The same seed always gives the same weights, and leaves torch's own random
            state unchanged. Without a seed, the weights come from that state.
    """
    if seed is None:
        return SSD(config, num_classes=num_classes).eval()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        return SSD(config, num_classes=num_classes).eval()


def load_network(config: DetectorConfig, tensors: Mapping[str, np.ndarray], *, num_classes: int) -> SSD:
    """Returns a network with the given weights, in 32 bits. It draws no random numbers.

    The network is built without memory for its weights first. Memory is taken only if all shapes fit.

    Args:
        config: Config of the detector.
        tensors: Weights by state-dict key.
        num_classes: Number of classes, the background not counted.

    Raises:
        ValueError: Tensors are missing, left over, of another shape or kind than the config says, or not finite.
    """
    try:
        with torch.device("meta"):
            network = SSD(config, num_classes=num_classes)
    except KeyError as error:  # torch uses this name for something else
        raise ValueError(f"a layer of {quoted(config.name)} cannot be called so: {error}") from error
    state = network.state_dict()
    _check_shapes(config, state, tensors, num_classes)
    weights = {key: _tensor(key, array, like=state[key]) for key, array in tensors.items()}
    if config.stored_default_boxes and bool((weights["default_boxes"][:, 2:] <= 0).any()):
        raise ValueError("the stored default boxes must have a width and a height above 0")
    network.load_state_dict(weights, assign=True)
    network.make_pixel_buffers(config)
    if any(buffer.is_meta for buffer in network.buffers()):
        # some transformers of timm compute tables that no file has; only a network that is built in full has them
        network = create_network(config, num_classes=num_classes, seed=0)
        network.load_state_dict(weights)
    return network.float().eval()


def _check_shapes(
    config: DetectorConfig, state: Mapping[str, Tensor], tensors: Mapping[str, np.ndarray], num_classes: int
) -> None:
    """Raises a ValueError that names the first tensor whose shape is not that of the network."""
    wanted = {key: tuple(tensor.shape) for key, tensor in state.items()}
    found = {key: tensor.shape for key, tensor in tensors.items()}
    if wanted == found:
        return
    wrong = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
    first, do = wrong[0], "s do" if len(wrong) > 1 else " does"
    raise ValueError(
        f"{len(wrong)} tensor{do} not fit {quoted(config.name)} with {num_classes} classes; the first is "
        f"{quoted(first)}: {found.get(first, 'missing')}, expected {wanted.get(first, 'none of that name')}"
    )


def _tensor(key: str, array: np.ndarray, *, like: Tensor) -> Tensor:
    """Returns a copy of the array as float32, or as int64 for a count.

    Raises:
        ValueError: The array holds another kind of numbers, or values that are not finite.
    """
    kinds, kind = ("f", np.float32) if like.is_floating_point() else ("iu", np.int64)
    if array.dtype.kind not in kinds:
        raise ValueError(f"the tensor {quoted(key)} holds numbers of type {array.dtype}, expected {kind.__name__}")
    with np.errstate(over="ignore"):  # a value that does not fit becomes infinite, and is refused below
        tensor = torch.from_numpy(np.array(array, dtype=kind))
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(
            f"the tensor {quoted(key)} holds values that are not finite: the file is damaged, or the training that "
            "wrote it diverged"
        )
    return tensor


def backbone_shapes(config: DetectorConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the backbone's tensors by its state-dict keys. No memory is taken for the tensors.

    Raises:
        ImportError: The backbone needs torchvision or timm, which is not installed.
    """
    with torch.device("meta"):
        backbone = make_backbone(config.backbone).network
    return {key: tuple(tensor.shape) for key, tensor in backbone.state_dict().items()}


def start_backbone(network: SSD, tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Loads the tensors into the backbone. Returns the keys missing from them, which keep their random values.

    Raises:
        ValueError: The backbone has no such tensor, or one of another shape or kind; or it is not finite.
    """
    state = network.backbone.state_dict()
    for key, tensor in tensors.items():
        if key not in state or state[key].shape != tensor.shape:
            expected = tuple(state[key].shape) if key in state else "none of that name"
            raise ValueError(f"the backbone's {quoted(key)} is {tensor.shape} in the weights, expected {expected}")
        state[key].copy_(_tensor(key, tensor, like=state[key]))
    # older files have no such counts
    return [key for key in state if key not in tensors and not key.endswith("num_batches_tracked")]


def network_tensors(network: SSD, *, half: bool = False) -> dict[str, np.ndarray]:
    """Returns the network's weights by state-dict key.

    Args:
        network: Network on any device.
        half: Whether the learned weights are in half precision. The statistics of BatchNorm and stored default boxes
            stay in 32 bits: rounded, they would shift all scores and boxes.

    Raises:
        ValueError: A weight is beyond the range of half precision.
    """
    learned = {key for key, _ in network.named_parameters()} if half else set()
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    return {key: (_halved(key, tensor) if key in learned else tensor).numpy() for key, tensor in tensors.items()}


def _halved(key: str, tensor: Tensor) -> Tensor:
    """Returns the tensor in half precision."""
    halved = tensor.half()
    lost = tensor.isfinite() & ~halved.isfinite()
    if bool(lost.any()):
        raise ValueError(
            f"the tensor '{key}' holds {tensor[lost][0].item():g}, which half precision cannot hold (it ends at "
            f"{torch.finfo(torch.float16).max:g}); save in full precision"
        )
    return halved


def network_with_classes(
    config: DetectorConfig, network: SSD, kept: Sequence[int | None], *, seed: int | None = None
) -> SSD:
    """Returns a copy of the network for other classes.

    Args:
        config: Config of the copy.
        network: Network to copy.
        kept: For each class of the copy, the label that it has in `network`, or `None` for a new class.
        seed: Seed of the random weights of new classes.
    """
    copied = create_network(config, num_classes=len(kept), seed=seed)
    copy_classes(network, copied, kept)
    return copied.to(network.default_boxes.device)


def copy_classes(source: SSD, target: SSD, kept: Sequence[int | None]) -> None:
    """Copies the weights of `source` into `target`, which differs in its classes only.

    Class i of `target` takes the rows of class `kept[i]` in the heads, or keeps its own if that is `None`. The
    background is always copied.
    """
    rows = [(0, 0)] + [(new + 1, old + 1) for new, old in enumerate(kept) if old is not None]
    new_rows, old_rows = (list(side) for side in zip(*rows, strict=True))
    state = target.state_dict()
    for key, tensor in source.state_dict().items():
        if _PER_CLASS.fullmatch(key):  # (boxes x classes and background, ...)
            per_class = state[key].unflatten(0, (-1, target.num_classes + 1))
            per_class[:, new_rows] = tensor.unflatten(0, (-1, source.num_classes + 1))[:, old_rows]
        else:
            state[key].copy_(tensor)


def timm_config(
    model: str, *, scales: Scales | None = None, height: int | None = None, width: int | None = None
) -> DetectorConfig:
    """Returns the config of an SSD on a backbone of timm, which gives its own mean and scale.

    Args:
        model: Name of the backbone, `timm/NAME`.
        scales: Sizes of the default boxes, as the authors chose them for VOC (the default) or for COCO.
        height: Height of the network input in pixels; by default the width, or 300.
        width: Width of the network input in pixels; by default the height, or 300.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or it does not take such an input.
    """
    height, width = input_size(height, width, 300)
    measured = measure_timm(model.removeprefix("timm/"), height, width)
    return ssd_config(
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
