"""The moving parts of a run: network, optimizer, average of the weights; a step of learning; saving and loading."""

import dataclasses
import json
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from multibox.data.sample import compare_classes
from multibox.detector import Detector
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import Losses, make_targets, multibox_loss
from multibox.ssd.network import SSD
from multibox.training.batches import Batch
from multibox.training.recipes import Precision, Recipe


class Run:
    """A detector that is being trained.

    Attributes:
        network: The one that learns.
        step: Steps done.
        seconds: Of training and validation, those before a resume included.
        validated: The step of the last validation.
        best: The highest AP of the validations so far.
    """

    def __init__(self, detector: Detector, recipe: Recipe, *, device: str, precision: Precision) -> None:
        self.network = detector.network.to(device).to(memory_format=torch.channels_last).train()
        self.step = 0
        self.seconds = 0.0
        self.validated = 0
        self.best = -1.0
        self._class_names = list(detector.class_names)
        self._config = json.dumps(dataclasses.asdict(detector.config))
        self._device = device
        self._precision = precision
        config = detector.config
        self._coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)
        self._averaged = _moving_average(self.network, recipe.average) if recipe.average else None
        self._optimizer = make_optimizer(self.network, recipe)

    @property
    def average(self) -> SSD:
        """The moving average of the weights, or the network itself where the recipe takes none."""
        return self.network if self._averaged is None else self._averaged.module  # type: ignore[return-value]

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    def learn(self, batch: Batch, *, learning_rate: float) -> Losses:
        """One step: images to predictions, objects to targets, loss, gradients, new weights."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        images, boxes, labels = (values.to(self._device, non_blocking=True) for values in batch[:3])
        with torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._precision == "bf16"):
            predictions = self.network(images.contiguous(memory_format=torch.channels_last))
        targets = make_targets(boxes, labels, self.network.default_boxes, self._coder)
        losses = multibox_loss(predictions, targets)
        if not torch.isfinite(losses.total):
            raise ValueError(
                f"step {self.step}: the localization loss is {losses.localization.item():.3g} and the confidence loss "
                f"{losses.confidence.item():.3g}; the batch was {', '.join(batch.names)}; try a lower learning rate"
            )
        self._optimizer.zero_grad()
        losses.total.backward()
        self._optimizer.step()
        if self._averaged is not None:
            self._averaged.update_parameters(self.network)
        self.step += 1
        return losses

    def save(self, path: Path) -> None:
        """Writes all that `load` needs to go on just here, whole or not at all."""
        part = path.with_name(path.name + ".part")
        torch.save(self._state(), part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        """Goes on from what `save` wrote.

        Raises:
            ValueError: The file is damaged, or of a detector of other classes or another config, or of a recipe of
                another kind.
        """
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            self._check(state["class_names"], json.loads(state["config"]))
            self.network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._averaged is not None:
                self._averaged.load_state_dict(state["average"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.validated, self.best = state["validated"], state["best"]
        except (OSError, EOFError, UnpicklingError, RuntimeError, KeyError, TypeError, ValueError) as error:
            # torch's own advice about files that it cannot read safely is no good one
            why = "it is not what a run saves" if isinstance(error, UnpicklingError) else f"{error}".split("\n\t")[0]
            raise ValueError(f"{path}: cannot go on from it ({why}); start anew in another folder") from error

    def _check(self, class_names: list[str], config: dict[str, Any]) -> None:
        """That a state is of this very detector; weights of the same shapes fit others as well."""
        if class_names != self._class_names:
            raise ValueError(compare_classes("it", class_names, "this run", self._class_names))
        ours = json.loads(self._config)
        different = [name for name in ours if name not in config or config[name] != ours[name]]
        if different:
            raise ValueError(f"its detector '{config.get('name')}' has another {', '.join(different)}")

    def _state(self) -> dict[str, Any]:
        return {
            "class_names": self._class_names,
            "config": self._config,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._averaged is None else self._averaged.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "validated": self.validated,
            "best": self.best,
        }


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, with its own rate and decay for biases (and for normalization, with AdamW).

    The Caffe code trains biases at twice the rate and without decay, and decays the scale of L2 normalization.
    """
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for name, parameter in network.named_parameters():
        plain = name.endswith(".bias") if recipe.optimizer == "sgd" else parameter.ndim == 1
        (biases if plain else weights).append(parameter)
    groups = [
        # the first group is the one whose rate is the run's
        {"params": weights, "weight_decay": recipe.weight_decay, "rate": 1.0},
        {"params": biases, "weight_decay": 0.0, "rate": recipe.bias_rate},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _moving_average(network: SSD, decay: float) -> AveragedModel:
    """A copy that follows the network, quickly at first so that it does not remember the random start."""

    def update(averages: list[Tensor], values: list[Tensor], steps: Tensor) -> None:
        warm = min(decay, (1 + int(steps)) / (10 + int(steps)))
        if averages[0].is_floating_point():
            get_ema_multi_avg_fn(warm)(averages, values, steps)
        else:  # BatchNorm's counts
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

    averaged = AveragedModel(network, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
    averaged.eval()
    return averaged
