"""SSD300 of ssd.pytorch (amdegroot/ssd.pytorch, MIT), trained on VOC or COCO.

Its own rules: all four numbers of a default box are clipped (`clip` in data/config.py, layers/functions/prior_box.py);
of each class the best 200 enter suppression (layers/box_utils.py), and no limit over the classes follows, since the one
that layers/functions/detection.py means to set writes to a copy; pixels are RGB, less their mean, after OpenCV's
bilinear resize of 8-bit pixels (data/__init__.py and data/voc0712.py; test.py leaves them BGR, eval.py does not). Its
L2Norm adds 1e-10 to the norm (layers/modules/l2norm.py) and ours to the square under the root, which shows only where
all features of a cell are as good as 0.
"""

from dataclasses import replace

from multibox.config import Postprocess
from multibox.presets import preset
from multibox.weights.converters.class_names import COCO, class_names
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.pytorch_ports import VGG16_PLACES, class_count, head_names, renamed
from multibox.weights.file import Weights

_COCO_OUTPUTS = 200
"""What data/config.py takes COCO to have (`num_classes`, less the background); the first 80 are COCO's."""


def convert(tensors: Tensors) -> Weights | None:
    """The detector of a state dict; `None` where it is not one of ssd.pytorch.

    Names of classes follow from their number, and so do the default boxes, as ssd.py has it: VOC's with twenty classes,
    COCO's with any other number. (data/coco.py splits "fire hydrant" and joins "microwave" to "oven" in its list of
    names; the labels that it trains with are those of COCO's eighty classes in order.)

    Raises:
        ValueError: Its layers are not those of SSD300.
    """
    if not {"vgg.0.weight", "L2Norm.weight", "conf.0.bias"} <= tensors.keys():
        return None
    config = preset("ssd300-vgg16")
    classes = class_count(tensors, "conf.0", config.feature_maps[0])
    config = preset("ssd300-vgg16", scales="voc" if classes == 20 else "coco")
    names = {f"vgg.{place}": f"backbone.{layer}" for place, layer in VGG16_PLACES.items()}
    names |= {f"extras.{place}": f"extras.{layer.name}" for place, layer in enumerate(config.extras)}
    names |= {"L2Norm": "norm.conv4_3"} | head_names(config, offsets="loc", logits="conf")
    unused = tuple(f"unused {number}" for number in range(len(COCO) + 1, _COCO_OUTPUTS + 1))
    return Weights(
        replace(
            config,
            clip_default_boxes="all",
            postprocess=Postprocess(max_candidates_per_class=200, max_detections=200 * classes),
        ),
        COCO + unused if classes == _COCO_OUTPUTS else class_names(classes),
        renamed(tensors, names, model="ssd.pytorch's SSD300"),
        {"converted from": "ssd.pytorch"},
    )
