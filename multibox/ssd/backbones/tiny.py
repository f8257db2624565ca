"""Our small backbone, which trains from scratch on a CPU.

It has plain 3x3 convolutions with BatchNorm, because depthwise ones leave a CPU waiting for memory, and residual blocks
(He et al. 2016).
"""

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source


def tiny(image_channels: int = 3) -> Backbone:
    """Returns the small backbone with the layers `stem` (stride 4), `stage3` (8), `stage4` (16) and `stage5` (32).

    `ssd256-tiny` has no feature map on the stem; for small objects, `multibox coverage --fit` may propose one.
    """
    sources = {"stem": Source(32, 4), "stage3": Source(64, 8), "stage4": Source(128, 16), "stage5": Source(128, 32)}
    return Backbone(Tiny(image_channels), sources)


class Tiny(nn.Module):
    """A stem to stride 4, then three stages that each halve the map."""

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(image_channels, 16, stride=2), _convolution(16, 32, stride=2), _Residual(32)
        )
        self.stage3 = nn.Sequential(_convolution(32, 64, stride=2), _Residual(64))
        self.stage4 = nn.Sequential(_convolution(64, 128, stride=2), _Residual(128))
        self.stage5 = nn.Sequential(_convolution(128, 128, stride=2), _convolution(128, 128))

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name."""
        stem = self.stem(inputs)
        stage3 = self.stage3(stem)
        stage4 = self.stage4(stage3)
        return {"stem": stem, "stage3": stage3, "stage4": stage4, "stage5": self.stage5(stage4)}


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        total: Tensor = features + self.second(self.first(features))
        return total.relu_()


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
