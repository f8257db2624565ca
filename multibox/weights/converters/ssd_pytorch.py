"""Converts SSD300 of ssd.pytorch (amdegroot/ssd.pytorch, MIT), trained on VOC or COCO.

The project has rules of its own. All four numbers of a default box are clipped (`clip` in data/config.py,
layers/functions/prior_box.py). The best 200 boxes of each class enter suppression (layers/box_utils.py). There is no
limit over all classes: the one in layers/functions/detection.py writes to a copy and has no effect. The mean is
subtracted from RGB pixels after OpenCV's bilinear resize of 8-bit pixels (data/__init__.py, data/voc0712.py; test.py
leaves pixels BGR, eval.py does not). Its L2Norm adds 1e-10 to the norm (layers/modules/l2norm.py), ours to the square
under the root. The two differ only if all features of a cell are nearly 0.
"""

from dataclasses import replace

from multibox.config import Postprocess
from multibox.presets import preset
from multibox.weights.converters.class_names import COCO, GuessedNames, class_names
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.pytorch_ports import VGG16_PLACES, class_count, head_names, renamed
from multibox.weights.file import Weights

_COCO_OUTPUTS = 200
"""Number of classes that data/config.py gives for COCO (`num_classes` less the background); the first 80 are used."""


def convert(tensors: Tensors) -> Weights | None:
    """Returns the detector of a state dict, or `None` if it is not one of ssd.pytorch.

    The number of classes gives their names and the default boxes, as in ssd.py: VOC's with twenty classes, COCO's with
    any other number. (The list of names in data/coco.py splits "fire hydrant" and joins "microwave" and "oven". The
    labels used in training are COCO's eighty classes in order.)

    Raises:
        ValueError: The layers are not those of SSD300.
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
        GuessedNames(COCO + unused, "COCO") if classes == _COCO_OUTPUTS else class_names(classes),
        renamed(tensors, names, model="ssd.pytorch's SSD300"),
        {"converted from": "ssd.pytorch"},
    )
