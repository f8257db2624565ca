"""Trains a small detector on a folder in the layout of VOC, COCO or YOLO, and scores it on the validation split.

python examples/train_on_your_folder.py raccoons/ runs/raccoons --minutes 10
"""

import argparse

import multibox


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of the data set")
    parser.add_argument("out", help="new folder for the weights, metrics and curves")
    parser.add_argument("--minutes", type=float, help="length of the training")
    parser.add_argument("--steps", type=int, help="length of the training in steps")
    arguments = parser.parse_args()

    config = multibox.TrainConfig(minutes=arguments.minutes, steps=arguments.steps)
    best = multibox.train("ssd256-tiny", arguments.data, config=config, out=arguments.out)
    metrics = multibox.evaluate(best, arguments.data)
    print(f"AP {metrics.ap or 0:.3f}, AP50 {metrics.ap50 or 0:.3f} on {metrics.images} images")


if __name__ == "__main__":  # the processes that read images import this file as well
    main()
