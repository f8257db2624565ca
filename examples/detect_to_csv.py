"""Detects objects in all images of a folder, and writes a row for each object to a CSV file.

python examples/detect_to_csv.py street/ found.csv --model runs/raccoons
"""

import argparse
import csv
from pathlib import Path

import multibox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of JPEG and PNG files")
    parser.add_argument("csv", type=Path, help="new file to write")
    parser.add_argument("--model", default="multibox/shapes", help="weights file or name of published weights")
    arguments = parser.parse_args()

    detector = multibox.load(arguments.model)
    images = [path for path in sorted(arguments.folder.rglob("*")) if path.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    with arguments.csv.open("x", newline="", encoding="utf-8") as file:  # "x": an existing file is not replaced
        writer = csv.writer(file)
        writer.writerow(["image", "class", "score", "x_min", "y_min", "x_max", "y_max"])
        for image in images:
            for found in detector.detect(image, score_threshold=0.5):
                corners = [round(value, 1) for value in found.box]
                writer.writerow([image, found.name, round(found.score, 3), *corners])
    print(f"{len(images)} images, see {arguments.csv}")


if __name__ == "__main__":
    main()
