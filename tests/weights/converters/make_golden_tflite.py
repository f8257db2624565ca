"""Writes golden_tflite.json: what TensorFlow Lite itself finds in images of VOC 2007 test, in 8-bit arithmetic.

pip install ai-edge-litert==2.3.0
MULTIBOX_DATA=... python -m tests.weights.converters.make_golden_tflite
"""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from multibox.images import open_image
from multibox.weights.converters.class_names import COCO_BY_ID

IMAGES = ["000001", "000002", "000004", "000006", "000008", "000010", "000011", "000013", "000014", "000015"]
AT_LEAST = 0.4


def pixels_of(image: bytes) -> np.ndarray:
    """Returns the pixels that TensorFlow Lite was given, 3 x 300 x 300: those of Pillow's bilinear interpolation.

    They must stay as they are: where two scores are nearly equal, one gray level decides which box the 8 bits keep.
    """
    opened = open_image(image)
    whole = (0, 0, *opened.size)
    small = opened.transform((300, 300), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def main() -> None:
    from ai_edge_litert.interpreter import Interpreter

    data = Path(os.environ["MULTIBOX_DATA"])
    interpreter = Interpreter(str(data / "coco_ssd_mobilenet_v1_quant.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    outputs = [output["index"] for output in interpreter.get_output_details()]
    found = {}
    with zipfile.ZipFile(data / "voc2007-test.zip") as archive:
        for name in IMAGES:
            pixels = pixels_of(archive.read(f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg")).transpose(1, 2, 0)
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(pixels)[None])
            interpreter.invoke()
            boxes, classes, scores, _ = (interpreter.get_tensor(output)[0] for output in outputs)
            found[name] = [
                {"name": COCO_BY_ID[int(number) + 1], "score": round(float(score), 4), "box": np.round(box, 4).tolist()}
                for box, number, score in zip(boxes[:, [1, 0, 3, 2]].astype(float), classes, scores, strict=True)
                if score >= AT_LEAST
            ]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(rows)}" for name, rows in found.items())
    (Path(__file__).parent / "golden_tflite.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
