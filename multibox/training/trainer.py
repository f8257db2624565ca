"""The network that learns, its optimizer, the moving average of its weights, and a training step."""

import copy
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from multibox.detector import Detector
from multibox.runtimes.precision import Precision
from multibox.ssd import cpu, loss, matching
from multibox.ssd.coder import BoxCoder
from multibox.ssd.distillation import distillation_loss
from multibox.ssd.loss import count_matches
from multibox.ssd.matching import Targets
from multibox.ssd.network import SSD
from multibox.training.distributed import ProcessGroup
from multibox.training.loading import Batch
from multibox.training.machine import memory_format
from multibox.training.optimizer import freeze_as, make_optimizer
from multibox.training.recipes import Recipe, TrainConfig
from multibox.training.teacher import Teacher

log = logging.getLogger("multibox")


class StepResult(NamedTuple):
    """The numbers of a training step, on the device. Reading one waits for the device.

    Attributes:
        localization: Localization loss over the images of all processes.
        confidence: Confidence loss over the images of all processes.
        distillation: Weighted distillation loss over the images of all processes; 0 without a teacher.
        gradient_norm: Norm of the gradient before clipping.
        nonfinite: Whether a loss or a gradient was not finite. The weights are then as before the step.
    """

    localization: Float[Tensor, ""]
    confidence: Float[Tensor, ""]
    distillation: Float[Tensor, ""]
    gradient_norm: Float[Tensor, ""]
    nonfinite: Bool[Tensor, ""]


class Trainer:
    """Trains the network of a detector, in place.

    Attributes:
        network: The network that learns.
        ema: The moving average of its weights, or the network itself if the recipe takes no average.
        precision: Precision of the convolutions.
        step_count: Number of steps done.
        on_cpu: Whether the network trains on the CPU.
        consistent: Whether all weights belong to the same step: false while they are updated.
    """

    def __init__(
        self,
        detector: Detector,
        recipe: Recipe,
        config: TrainConfig,
        *,
        precision: Precision,
        group: ProcessGroup,
        teacher: Teacher | None = None,
    ) -> None:
        """Moves the network to its device and makes its optimizer.

        Args:
            detector: The detector whose network learns.
            recipe: The recipe, with the values of the run.
            config: Values of the run; its class weights are numbers, by name.
            precision: Precision of the convolutions.
            group: The processes of the run.
            teacher: The teacher whose outputs the network learns as well, if there is one.
        """
        self._memory_format = memory_format(detector.network, device=group.device, precision=precision)
        self.network: SSD = detector.network.to(group.device).to(memory_format=self._memory_format)
        self.ema = copy.deepcopy(self.network).eval() if recipe.ema_decay else self.network
        self.precision = precision
        self._detector = detector
        self.step_count = 0
        self.on_cpu = group.device == "cpu"
        self.consistent = True
        self._ema_decay = recipe.ema_decay
        self._config = config
        self._group = group
        self._teacher = teacher
        if teacher:
            teacher.to(group.device, memory_format=self._memory_format)
        self._class_weights = None
        if config.class_weights is not None:
            weights = config.class_weights
            assert not isinstance(weights, str)  # `balanced` has become numbers
            by_label = [1.0, *(weights[name] for name in detector.class_names)]  # the background's is 1
            self._class_weights = torch.tensor(by_label, device=group.device)
        values = detector.config
        self._coder = BoxCoder(values.center_variance, values.size_variance, values.max_log_size)
        freeze_as(recipe, self.network, config.freeze)
        self._optimizer = make_optimizer(self.network, recipe)
        self._learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._statistics = [
            values
            for layer in self.network.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
            for values in (layer.running_mean, layer.running_var, layer.num_batches_tracked)
            if values is not None
        ]
        pairs = list(zip(self.ema.state_dict().values(), self.network.state_dict().values(), strict=True))
        self._averaged = tuple(zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True))
        self._counted = [pair for pair in pairs if not pair[0].is_floating_point()]
        _check_parts(recipe, config, group, batch_norm=self.has_batch_norm)
        if config.compile:
            self.network.compile()
        self._distributed = None
        if group.size > 1:
            if config.sync_batch_norm:
                self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
            self._distributed = DistributedDataParallel(self.network)

    @property
    def has_batch_norm(self) -> bool:
        """Whether BatchNorm updates its statistics, so that an image depends on the others of its batch."""
        return bool(self._statistics)

    def step(self, batch: Batch, *, learning_rate: float) -> StepResult:
        """Makes one training step: inputs to predictions, objects to targets, loss, gradients, new weights.

        Everything random in it depends only on the seed, the number of the step and the process. Nothing in it makes
        the host wait for a CUDA device, except where processes share one. If it raises before the update, the weights
        and statistics are as before.
        """
        torch.manual_seed(hash((self._config.seed, self.step_count, self._group.rank)))
        self._optimizer.zero_grad()
        statistics = [values.clone() for values in self._statistics]
        try:
            losses = self._gradients(batch)
            gradients = [parameter.grad for parameter in self._learning if parameter.grad is not None]
            norm = get_total_norm(gradients)
            nonfinite = ~torch.isfinite(norm + losses.sum())
            if self._config.clip_norm is not None:
                clip_grads_with_norm_(self._learning, self._config.clip_norm, norm)
        except BaseException:  # out of memory, for example: the forward pass may have changed BatchNorm's statistics
            for values, before in zip(self._statistics, statistics, strict=True):
                values.copy_(before)
            raise
        self.consistent = False
        self._update(nonfinite, learning_rate)
        for values, before in zip(self._statistics, statistics, strict=True):
            values.copy_(torch.where(nonfinite, before, values))
        self.step_count += 1
        if self._ema_decay:
            self._update_ema()
        self.consistent = True
        return StepResult(losses[0], losses[1], losses[2], norm, nonfinite)

    def _gradients(self, batch: Batch) -> Float[Tensor, "3"]:
        """Computes the gradients of the loss over all processes' images. Returns its terms, in `StepResult`'s order.

        All terms are divided by the number of matches in the whole step, whichever part of it a process or a part of
        a batch has.
        """
        device, config, size = self._group.device, self._config, self._group.size
        # two ways to the same results: on a CPU, one image at a time is several times faster
        make_targets = cpu.make_targets if self.on_cpu else matching.make_targets
        multibox_loss = cpu.multibox_loss if self.on_cpu else loss.multibox_loss
        inputs, boxes, labels = (values.to(device, non_blocking=True) for values in batch[:3])
        rules: dict[str, Any] = {
            "negatives_per_positive": config.negatives_per_positive,
            "negatives_without_matches": config.negatives_without_matches,
        }
        targets = make_targets(boxes, labels, self.network.default_boxes, self._coder)
        divisor = self._group.sum_(count_matches(targets, **rules))
        predict = self._distributed or self.network
        losses = torch.zeros(3, device=device)
        parts = config.accumulate  # no process has fewer images than that
        for part, (part_inputs, *part_targets) in enumerate(
            zip(*(values.tensor_split(parts) for values in (inputs, *targets)), strict=True), start=1
        ):
            last = part == parts
            alone = self._distributed.no_sync() if self._distributed and not last else nullcontext()
            with alone:
                with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.precision == "bf16"):
                    part_inputs = part_inputs.contiguous(memory_format=self._memory_format)
                    predictions = predict(part_inputs)
                    taught = self._teacher.predict(part_inputs) if self._teacher else None
                localization, confidence, _ = multibox_loss(
                    predictions,
                    Targets(*part_targets),
                    class_weights=self._class_weights,
                    divisor=divisor,
                    **rules,
                )
                total, distillation = localization + confidence, torch.zeros_like(confidence)
                if taught:
                    distillation = config.distillation_weight * distillation_loss(predictions, taught, divisor=divisor)
                    total = total + distillation
                (total * size).backward()  # DDP takes the mean over the processes
            losses += torch.stack([localization, confidence, distillation]).detach()
        return self._group.sum_(losses)

    def _update(self, nonfinite: Bool[Tensor, ""], learning_rate: float) -> None:
        """Updates the weights, unless the step was not finite."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_factor"]
        if self._optimizer.defaults["fused"]:
            # torch's gradient scaler uses this to tell a fused optimizer, on the device, to leave the weights alone
            self._optimizer.found_inf = nonfinite.float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif not nonfinite:  # the host waits for the device here
            self._optimizer.step()

    def _update_ema(self) -> None:
        """Updates the moving average. It follows quickly at first so that it forgets the random start."""
        keep = min(self._ema_decay, self.step_count / (9 + self.step_count)) if self.step_count > 1 else 0.0
        averages, values = self._averaged
        torch._foreach_lerp_(averages, values, 1 - keep)
        for average, value in self._counted:
            average.copy_(value)

    def averaged(self, provenance: Mapping[str, str], score_thresholds: Mapping[str, float]) -> Detector:
        """Returns a detector that shares the averaged weights, with this further provenance and these thresholds."""
        before = self._detector
        return Detector.of_network(
            before.config,
            before.class_names,
            self.ema,
            provenance=before.provenance | dict(provenance),
            score_thresholds=score_thresholds,
            learned_classes=before.class_names,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights, their average and the optimizer's state."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": self.ema.state_dict() if self._ema_decay else None,
            "teacher": self._teacher.origin if self._teacher else None,
        }

    def load_state_dict(self, state: dict[str, Any], *, step: int) -> None:
        """Loads what `state_dict` returned after that many steps.

        Raises:
            ValueError: The state is of another optimizer, of other frozen layers, or of a run with a teacher, and this
                one has none.
            RuntimeError: The weights belong to another network.
        """
        before, now = state.get("teacher"), self._teacher.origin if self._teacher else None
        if before and not now:
            raise ValueError(
                f"it learns from a teacher ({before}), which is missing; give it again (teacher, --teacher)"
            )
        if before != now:
            log.info(f"the teacher is {now} from here on, and was {before or 'none'}")
        self.network.load_state_dict(state["network"])
        self._load_optimizer(state["optimizer"])
        if self._ema_decay:
            self.ema.load_state_dict(state["ema"])
        self.step_count = step

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Loads the optimizer's state of each weight. Learning rates and decays stay those of this run."""
        groups = self._optimizer.param_groups
        if [group["param_names"] for group in groups] != [group["param_names"] for group in state["param_groups"]]:
            raise ValueError("it trains other weights, or by another optimizer: freeze or recipe differ")
        own = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        merged = [saved | values for saved, values in zip(state["param_groups"], own, strict=True)]
        self._optimizer.load_state_dict(state | {"param_groups": merged})
        # a fused optimizer runs through memory whatever the order of the axes, which differs between devices
        for parameter, stored in self._optimizer.state.items():
            for name, values in stored.items():
                if values.shape == parameter.shape:
                    stored[name] = torch.empty_like(parameter).copy_(values)


def _check_parts(recipe: Recipe, config: TrainConfig, group: ProcessGroup, *, batch_norm: bool) -> None:
    """Checks that each process has images for each part of a step.

    Raises:
        ValueError: A part would have no image, or BatchNorm would have a single one.
    """
    least = recipe.batch_size // (group.size * config.accumulate)
    numbers = f"batch_size is {recipe.batch_size}, for {group.size} processes and accumulate={config.accumulate} parts"
    if least < 1:
        raise ValueError(f"{numbers}: each needs an image; give batch_size={group.size * config.accumulate} or more")
    if batch_norm and least < 2 and not (config.sync_batch_norm and group.size > 1):
        raise ValueError(f"{numbers}: BatchNorm needs two images in each; give a larger batch_size")
    if config.sync_batch_norm and not group.device.startswith("cuda"):
        raise ValueError(f"sync_batch_norm works on GPUs only, but the device is {group.device}")
