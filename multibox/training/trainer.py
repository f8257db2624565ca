"""The moving parts of a run: network, optimizer, average of the weights; and a step of learning."""

import copy
import dataclasses
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from multibox.data.sample import compare_classes
from multibox.detector import Detector
from multibox.ssd import cpu, loss, matching
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import count_matches
from multibox.ssd.matching import Targets
from multibox.ssd.network import SSD
from multibox.training.distributed import World
from multibox.training.loading import Batch
from multibox.training.machine import memory_format
from multibox.training.optimizer import freeze, make_optimizer
from multibox.training.progress import Stretch
from multibox.training.recipes import Precision, Recipe, TrainConfig

log = logging.getLogger("multibox")


class Step(NamedTuple):
    """What a step did, on the device: to read it is to wait for it.

    Attributes:
        localization: The loss over the images of all processes.
        confidence: The same.
        gradient_norm: Before clipping.
        bad: A loss or a gradient was not finite; the weights are as before the step.
    """

    localization: Float[Tensor, ""]
    confidence: Float[Tensor, ""]
    gradient_norm: Float[Tensor, ""]
    bad: Bool[Tensor, ""]


class Run:
    """A detector that is being trained.

    Attributes:
        network: The one that learns.
        precision: Of the convolutions.
        average: The moving average of its weights, or the network itself where the recipe takes none.
        step: Steps done.
        seconds: Of training and validation, those before a resume included.
        validation_seconds: Of these, of validation.
        validated: The step of the last validation.
        best: The highest AP of the validations so far.
        best_step: Its step.
        since_best: Validations since then.
        bad_in_a_row: The last steps, so far as they were not finite.
        learning_rate: Of the last step.
        stretch: The steps since the last validation.
        unreadable: What was wrong with images whose places others took.
    """

    def __init__(
        self, detector: Detector, recipe: Recipe, config: TrainConfig, *, precision: Precision, world: World
    ) -> None:
        self._memory_format = memory_format(detector.network, device=world.device, precision=precision)
        self.network: SSD = detector.network.to(world.device).to(memory_format=self._memory_format)
        self.average = copy.deepcopy(self.network).eval() if recipe.ema_decay else self.network
        self.step = 0
        self.seconds = 0.0
        self.validation_seconds = 0.0
        self.validated = 0
        self.best = -1.0
        self.best_step = 0
        self.since_best = 0
        self.bad_in_a_row = 0
        self.learning_rate = 0.0
        self.stretch = Stretch()
        self.unreadable: list[str] = []
        self._class_names = list(detector.class_names)
        self._detector_config = json.dumps(dataclasses.asdict(detector.config))
        self._recipe = recipe
        self._config = config
        self.precision = precision
        self._world = world
        values = detector.config
        self._coder = BoxCoder(values.center_variance, values.size_variance, values.max_log_size)
        freeze(self.network, config.freeze)
        self._optimizer = make_optimizer(self.network, recipe, config)
        self._fused = self._optimizer.defaults["fused"]
        self._learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._statistics = [
            values
            for layer in self.network.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
            for values in (layer.running_mean, layer.running_var)
            if values is not None
        ]
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True))
        self._averaged = tuple(zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True))
        self._counted = [pair for pair in pairs if not pair[0].is_floating_point()]
        _check_parts(recipe, config, world, batch_norm=self.has_batch_norm)
        if config.compile:
            self.network.compile()
        self._distributed = None
        if world.size > 1:
            if config.sync_batch_norm:
                self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
            self._distributed = DistributedDataParallel(self.network)

    @property
    def has_batch_norm(self) -> bool:
        """Whether what is learned of an image depends on those beside it."""
        return bool(self._statistics)

    def learn(self, batch: Batch, *, learning_rate: float) -> Step:
        """One step: images to predictions, objects to targets, loss, gradients, new weights.

        Whatever is random in it depends on the seed, the step and the process only. Nothing in it makes the host wait
        for a GPU of CUDA (where processes share one, their sums do).
        """
        self.learning_rate = learning_rate
        torch.manual_seed(hash((self._config.seed, self.step, self._world.rank)))
        self._optimizer.zero_grad()
        statistics = [values.clone() for values in self._statistics]
        losses = self._gradients(batch)
        gradients = [parameter.grad for parameter in self._learning if parameter.grad is not None]
        norm = get_total_norm(gradients)
        bad = ~torch.isfinite(norm + losses.sum())
        if self._config.clip_norm is not None:
            clip_grads_with_norm_(self._learning, self._config.clip_norm, norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["rate"]
        if self._fused:
            # how the gradient scaler tells the fused optimizers, on the device, to leave the weights as they are
            self._optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not bad:  # the host waits for the device to say so
            self._optimizer.step()
        for values, before in zip(self._statistics, statistics, strict=True):
            values.copy_(torch.where(bad, before, values))
        self.step += 1
        if self._recipe.ema_decay:
            self._follow()
        return Step(losses[0], losses[1], norm, bad)

    def _gradients(self, batch: Batch) -> Float[Tensor, "2"]:
        """Leaves the gradients of the loss over all processes' images in the weights; the two losses.

        Both are divided by the matches of the whole step, whatever part of it a process, or a part of a batch, has.
        """
        device, config, size = self._world.device, self._config, self._world.size
        # two ways to the same results: on a CPU, one image at a time is several times faster
        on_cpu = torch.device(device).type == "cpu"
        make_targets = cpu.make_targets if on_cpu else matching.make_targets
        multibox_loss = cpu.multibox_loss if on_cpu else loss.multibox_loss
        inputs, boxes, labels = (values.to(device, non_blocking=True) for values in batch[:3])
        rules = {"negatives_without_matches": config.negatives_without_matches}
        targets = make_targets(boxes, labels, self.network.default_boxes, self._coder)
        divisor = self._world.sum_(count_matches(targets, **rules))
        predict = self._distributed or self.network
        losses = torch.zeros(2, device=device)
        parts = config.accumulate  # no process has fewer images than that
        for part, (part_inputs, *part_targets) in enumerate(
            zip(*(values.tensor_split(parts) for values in (inputs, *targets)), strict=True), start=1
        ):
            last = part == parts
            alone = self._distributed.no_sync() if self._distributed and not last else nullcontext()
            with alone:
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.precision == "bf16"):
                    predictions = predict(part_inputs.contiguous(memory_format=self._memory_format))
                part_losses = multibox_loss(predictions, Targets(*part_targets), divisor=divisor, **rules)
                (part_losses.total * size).backward()  # DDP takes the mean over the processes
            losses += torch.stack([part_losses.localization, part_losses.confidence]).detach()
        return self._world.sum_(losses)

    def _follow(self) -> None:
        """The average follows the weights, quickly at first so that it does not remember the random start."""
        keep = min(self._recipe.ema_decay, self.step / (9 + self.step)) if self.step > 1 else 0.0
        averages, values = self._averaged
        torch._foreach_lerp_(averages, values, 1 - keep)
        for average, value in self._counted:
            average.copy_(value)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on just here, in any number of processes."""
        return {
            "class_names": self._class_names,
            "config": self._detector_config,
            "values": self._config.values(),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self.average.state_dict() if self._recipe.ema_decay else None,
            "stretch": dataclasses.asdict(self.stretch),
            **{name: getattr(self, name) for name in _COUNTS},
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Goes on from what `state` gave, and `path` held.

        Raises:
            ValueError: It is of a detector of other classes or another config, of a recipe of another kind, or of other
                batches.
        """
        try:
            self._check(state["class_names"], json.loads(state["config"]), state["values"])
            self.network.load_state_dict(state["network"])
            self._load_optimizer(state["optimizer"])
            if self._recipe.ema_decay:
                self.average.load_state_dict(state["average"])
            self.stretch = Stretch(**state["stretch"])
            for name in _COUNTS:
                setattr(self, name, state[name])
            self._say_changes(state["values"])
        except (RuntimeError, KeyError, TypeError, AttributeError, ValueError) as error:
            why = str(error).split("\n\t")[0]
            raise ValueError(f"{path}: cannot go on from it ({why}); start anew in another folder") from error

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """What it has seen of each weight; all else, as rates and decays, is that of this run and its device."""
        groups = self._optimizer.param_groups
        if [group["param_names"] for group in groups] != [group["param_names"] for group in state["param_groups"]]:
            raise ValueError("it learns other weights, or by another optimizer: freeze or recipe differ")
        own = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        merged = [saved | values for saved, values in zip(state["param_groups"], own, strict=True)]
        self._optimizer.load_state_dict(state | {"param_groups": merged})
        # the fused optimizers go through memory, whatever the order of the axes in it, which differs between devices
        for parameter, seen in self._optimizer.state.items():
            for name, values in seen.items():
                if values.shape == parameter.shape:
                    seen[name] = torch.empty_like(parameter).copy_(values)

    def _check(self, class_names: list[str], config: dict[str, Any], values: dict[str, Any]) -> None:
        """That a state is of this very detector (its weights may fit others as well), and counts the same steps."""
        if class_names != self._class_names:
            raise ValueError(compare_classes("it", class_names, "this run", self._class_names))
        ours = json.loads(self._detector_config)
        different = [name for name in ours if name not in config or config[name] != ours[name]]
        if different:
            raise ValueError(f"its detector '{config.get('name')}' has another {', '.join(different)}")
        before, now = values.get("batch_size"), self._config.batch_size
        if before != now:
            raise ValueError(
                f"its steps are of {before} images, this run's of {now}; batch_size={before} would go on, with "
                "accumulate=2 in less memory"
            )

    def _say_changes(self, values: dict[str, Any]) -> None:
        """Which values of the run are others than before."""
        ours = self._config.values()
        for name in sorted(values.keys() | ours.keys()):
            now, before = (each.get(name, "not given") for each in (ours, values))
            if now != before:
                log.info(f"{name} is {now} from here on, and was {before}")


_COUNTS = (
    "unreadable",
    "step",
    "seconds",
    "validation_seconds",
    "validated",
    "best",
    "best_step",
    "since_best",
    "bad_in_a_row",
    "learning_rate",
)


def _check_parts(recipe: Recipe, config: TrainConfig, world: World, *, batch_norm: bool) -> None:
    """That each process has images for each part of a step."""
    least = recipe.batch_size // (world.size * config.accumulate)
    numbers = f"batch_size is {recipe.batch_size}, for {world.size} processes and accumulate={config.accumulate} parts"
    if least < 1:
        raise ValueError(f"{numbers}: each needs an image; give batch_size={world.size * config.accumulate} or more")
    if batch_norm and least < 2 and not (config.sync_batch_norm and world.size > 1):
        raise ValueError(f"{numbers}: BatchNorm needs two images in each; give a larger batch_size")
    if config.sync_batch_norm and not world.device.startswith("cuda"):
        raise ValueError(f"sync_batch_norm works on GPUs only, but the device is {world.device}")
