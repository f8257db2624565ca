"""Detects objects in all images of a folder, and writes a row for each object to a CSV file.

python examples/detect_to_csv.py street/ found.csv --model runs/raccoons
"""

import argparse
import csv
from pathlib import Path

import multibox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images")
    parser.add_argument("csv", type=Path, help="new file to write")
    parser.add_argument("--model", default="multibox/shapes", help="weights file or name of published weights")
    arguments = parser.parse_args()

    detector = multibox.load(arguments.model)
    images = detector.detect(arguments.folder, score_threshold=0.5)
    with arguments.csv.open("x", newline="", encoding="utf-8") as file:  # "x": an existing file is not replaced
        writer = csv.writer(file)
        writer.writerow(["image", "class", "score", "x_min", "y_min", "x_max", "y_max"])
        for found in images:
            for one in found:
                corners = [round(value, 1) for value in one.box]
                writer.writerow([found.path, one.name, round(one.score, 3), *corners])
    print(f"{len(images)} images, see {arguments.csv}")


if __name__ == "__main__":
    main()
