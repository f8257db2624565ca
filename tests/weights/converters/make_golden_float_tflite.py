"""Writes golden_float_tflite.json: what TensorFlow Lite itself finds with the float files that tflite_files.py writes.

pip install ai-edge-litert==2.3.0 torch  # torch for the reference in tflite_files.py only
python -m tests.weights.converters.make_golden_float_tflite
"""

import json
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tests.weights.converters.tflite_files import EVERY, NETWORKS, image, write_ssd


def main() -> None:
    found = {}
    for name, arguments in NETWORKS.items():
        interpreter = Interpreter(model_content=write_ssd(classes=3, **arguments).data, num_threads=1)
        interpreter.allocate_tensors()
        (entry,) = interpreter.get_input_details()
        pixels = image(*entry["shape"][1:3].tolist())
        interpreter.set_tensor(entry["index"], ((pixels.astype(np.float32) - 127.5) / 127.5)[None])
        interpreter.invoke()
        boxes, labels, scores, _, offsets, probabilities = (
            interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()
        )
        found[name] = {
            "offsets": np.round(offsets[::EVERY].astype(float), 5).tolist(),
            "scores": np.round(probabilities[::EVERY, 1:].astype(float), 6).tolist(),
            "detections": [
                [int(label), round(float(score), 5), *np.round(box[[1, 0, 3, 2]].astype(float), 5).tolist()]
                for label, score, box in zip(labels, scores, boxes, strict=True)
            ],
        }
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(rows)}" for name, rows in found.items())
    (Path(__file__).parent / "golden_float_tflite.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
