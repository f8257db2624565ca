"""VGG-16 as the SSD paper uses it (section 3.1): with convolutions in place of fully connected layers.

Simonyan and Zisserman 2015; reduced as in Chen et al. 2015 (DeepLab-LargeFOV).
"""

from torch import Tensor, nn

from multibox.ssd.backbones.backbone import Backbone, Source
from multibox.ssd.initialize import initialize_vgg16

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg16(image_channels: int = 3) -> Backbone:
    """Returns VGG-16 with the layers `conv4_3` (stride 8) and `conv7` (stride 16)."""
    sources = {"conv4_3": Source(512, 8), "conv7": Source(1024, 16)}
    return Backbone(VGG16(image_channels, sources=tuple(sources)), sources)


class VGG16(nn.Module):
    """The thirteen convolutions of VGG-16, then `conv6` and `conv7`.

    These two are the paper's names for `fc6` and `fc7`, which are reduced to 1,024 channels. `conv6` is dilated (the
    "atrous" algorithm) because `pool5` no longer halves the map. Pools round sizes up, as in the Caffe code: 75 becomes
    38.
    """

    def __init__(self, image_channels: int, *, sources: tuple[str, ...]) -> None:
        super().__init__()
        self.sources = sources
        inputs = image_channels
        for stage, (width, convolutions) in enumerate(_STAGES, start=1):
            for index in range(1, convolutions + 1):
                self.add_module(f"conv{stage}_{index}", nn.Conv2d(inputs, width, 3, padding=1))
                inputs = width
            last = stage == len(_STAGES)
            pool = nn.MaxPool2d(3, stride=1, padding=1) if last else nn.MaxPool2d(2, stride=2, ceil_mode=True)
            self.add_module(f"pool{stage}", pool)
        self.conv6 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6)
        self.conv7 = nn.Conv2d(1024, 1024, 1)
        initialize_vgg16(self)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Returns the source layers by name, after ReLU."""
        features, sources = inputs, {}
        for name, layer in self.named_children():
            features = layer(features)
            if isinstance(layer, nn.Conv2d):
                features = features.relu_()
            if name in self.sources:
                sources[name] = features
        return sources
