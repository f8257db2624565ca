"""Goes through the paper on one image: default boxes, matching, the MultiBox loss, and suppression.

python examples/paper_step_by_step.py
"""

import torch

import multibox
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import multibox_loss
from multibox.ssd.matching import make_targets


def main() -> None:
    (sample,) = multibox.synthetic_scenes(1, seed=4)
    detector = multibox.load("multibox/shapes")
    config, network = detector.config, detector.network
    print(f"{len(sample.truth)} objects in an image of {sample.width} x {sample.height} pixels")

    grids = ", ".join(f"{each.rows} x {each.columns}" for each in config.feature_maps)
    print(f"{len(network.default_boxes)} default boxes on feature maps of {grids} cells")

    size = torch.tensor([sample.width, sample.height] * 2)
    boxes = torch.from_numpy(sample.truth.boxes)[None] / size  # a batch of one image, as fractions of its size
    labels = torch.from_numpy(sample.truth.labels)[None]
    coder = BoxCoder(config.center_variance, config.size_variance)
    targets = make_targets(boxes, labels, network.default_boxes, coder)
    print(f"{int((targets.labels > 0).sum())} of them match an object; label 0 is the background")

    predictions = network(torch.from_numpy(detector.prepare(sample.image)))
    losses = multibox_loss(predictions, targets)
    print(f"localization loss {losses.localization:.3f}, confidence loss {losses.confidence:.3f}")

    for found in detector.detect(sample.image, score_threshold=0.5):
        print(f"{found}, found by default box {found.default_box_index}")


if __name__ == "__main__":
    main()
