"""A step of learning: the optimizer's rule, the average of the weights, parts of a batch, steps that are not finite."""

import copy
import csv
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector
from multibox.presets import preset
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import multibox_loss
from multibox.ssd.matching import make_targets
from multibox.ssd.network import SSD
from multibox.training import RECIPES, TrainConfig
from multibox.training.distributed import ProcessGroup
from multibox.training.loading import make_loader
from multibox.training.machine import memory_format
from multibox.training.optimizer import freeze, freeze_as, make_optimizer
from multibox.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("plain_recipes")


@pytest.fixture(scope="module")
def train_set():
    return synthetic_scenes(12, seed=1, height=64, width=64)


@pytest.fixture
def paper_network(small_config):
    """With biases in all layers and L2 normalization on the first source layer."""
    first, *rest = small_config.feature_maps
    config = replace(
        small_config,
        extras_batch_norm=False,
        feature_maps=(
            replace(first, head="conv3x3", norm="l2"),
            *(replace(row, head="conv3x3") for row in rest),
        ),
    )
    return Detector.create(config, ("a", "b"), seed=0)


def new_trainer(detector, recipe, *, precision="fp32", **values):
    group = ProcessGroup(rank=0, size=1, device="cpu")
    return Trainer(detector, recipe, TrainConfig(**values), precision=precision, group=group)


def total(step):
    return (step.localization + step.confidence).item()


def groups_by_name(network, optimizer):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in groups
            groups[names[id(parameter)]] = (group["lr_factor"], group["weight_decay"])
    assert groups.keys() == set(names.values())
    return groups


def test_the_papers_biases_learn_twice_as_fast_and_do_not_decay(paper_network):
    network = paper_network.network
    optimizer = make_optimizer(network, RECIPES["paper"])
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    for name, (rate, decay) in groups_by_name(network, optimizer).items():
        assert (rate, decay) == ((2.0, 0.0) if name.endswith(".bias") else (1.0, 5e-4)), name
    assert groups_by_name(network, optimizer)["norm.stage3.weight"] == (1.0, 5e-4)
    assert any(name.startswith("extras.conv6_2.") and name.endswith(".bias") for name, _ in network.named_parameters())


def test_adamw_decays_kernels_only(paper_network):
    network = paper_network.network
    optimizer = make_optimizer(network, RECIPES["modern"])
    assert isinstance(optimizer, torch.optim.AdamW)
    for name, (_, decay) in groups_by_name(network, optimizer).items():
        kernel = dict(network.named_parameters())[name].ndim == 4
        assert decay == (RECIPES["modern"].weight_decay if kernel else 0.0), name


@pytest.fixture
def batches(paper_network, train_set):
    two_classes = [
        replace(sample, truth=type(sample.truth)(sample.truth.boxes, sample.truth.labels % 2)) for sample in train_set
    ]
    return list(
        make_loader(
            Dataset("two classes", ("a", "b"), two_classes),
            paper_network.config,
            RECIPES["paper"].augmentation,
            batch_size=4,
            first_step=0,
            steps=3,
            seed=0,
            workers=0,
        )
    )


def test_a_step_is_the_rule_of_sgd(paper_network, batches):
    """v <- 0.9 v + gradient + decay x w; w <- w - rate x v, with the rate of each step.

    The rates are low: which negatives are the hardest hangs by a hair, and must not differ for rounding.
    """
    paper_network.network.double()  # in single precision, sums differ between processors
    config = paper_network.config
    ours = new_trainer(paper_network, RECIPES["paper"])
    literal = SSD(config, num_classes=2).to(memory_format=torch.channels_last)  # the same rounding
    literal.load_state_dict(ours.network.state_dict())
    literal.double()
    literal.train()
    velocity = {name: torch.zeros_like(parameter) for name, parameter in literal.named_parameters()}
    for batch, rate in zip(batches, (1e-4, 3e-4, 2e-4), strict=True):
        losses = ours.step(batch, learning_rate=rate)
        literal.zero_grad()
        coder = BoxCoder(config.center_variance, config.size_variance)
        targets = make_targets(batch.boxes, batch.labels, literal.default_boxes, coder)
        expected = multibox_loss(literal(batch.inputs.contiguous(memory_format=torch.channels_last)), targets)
        expected.total.backward()
        with torch.no_grad():
            for name, parameter in literal.named_parameters():
                bias = name.endswith(".bias")
                velocity[name] = 0.9 * velocity[name] + parameter.grad + (0 if bias else 5e-4) * parameter
                parameter -= rate * (2 if bias else 1) * velocity[name]
        assert total(losses) == pytest.approx(expected.total.item(), rel=1e-4)
    assert ours.step_count == 3
    for (name, parameter), other in zip(ours.network.named_parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6, msg=name)
    assert ours.ema is ours.network


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_a_step_on_a_gpu_does_not_wait_for_it_and_is_that_of_the_cpu(plain_network, batches, recipe):
    runs = [
        Trainer(
            copy.deepcopy(plain_network),
            RECIPES[recipe],
            TrainConfig(clip_norm=10.0, accumulate=2),
            precision="fp32",
            group=ProcessGroup(rank=0, size=1, device=device),
        )
        for device in ("cpu", "cuda")
    ]
    pinned = [
        batch._replace(**{name: getattr(batch, name).pin_memory() for name in ("inputs", "boxes", "labels")})
        for batch in batches
    ]
    steps = [[run.step(batch, learning_rate=1e-4) for batch in pinned[:2]] for run in runs]  # what is set up may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps[1].append(runs[1].step(pinned[2], learning_rate=1e-4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    steps[0].append(runs[0].step(pinned[2], learning_rate=1e-4))
    for ours, expected in zip(*steps, strict=True):
        for value, known in zip(ours[:3], expected[:3], strict=True):
            torch.testing.assert_close(value.cpu(), known, rtol=0.02, atol=1e-3)  # its convolutions round more


def test_the_average_follows_the_weights(paper_network, batches):
    """The first step's weights, then (1 + n) / (10 + n) of what it was and the rest of the new, at most the decay's."""
    run = new_trainer(paper_network, replace(RECIPES["modern"], ema_decay=0.25))
    # a weight, and a statistic of batch normalization, which is averaged likewise
    keys = ("backbone.stage3.0.0.weight", "backbone.stage3.0.1.running_mean")
    expected = {}
    for number, batch in enumerate(batches):
        run.step(batch, learning_rate=1e-2)
        state = run.network.state_dict()
        for key in keys:
            keep = 0.0 if number == 0 else min(0.25, (1 + number) / (10 + number))
            expected[key] = keep * expected.get(key, 0) + (1 - keep) * state[key]
    average = run.ema.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(average[key], value, msg=key)
        assert not torch.equal(average[key], run.network.state_dict()[key])
    assert average["backbone.stage3.0.1.num_batches_tracked"] == 3
    assert not run.ema.training and run.network.training
    assert torch.equal(run.ema.default_boxes, run.network.default_boxes)


def test_a_learning_rate_of_zero_changes_no_weight(paper_network, batches):
    run = new_trainer(paper_network, RECIPES["modern"])
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    assert math.isfinite(total(run.step(batches[0], learning_rate=0.0)))
    assert all(map(torch.equal, before, run.network.parameters()))


def test_half_precision_trains_too(paper_network, batches):
    run = new_trainer(paper_network, RECIPES["modern"], precision="bf16")
    losses = [total(run.step(batches[0], learning_rate=1e-3)) for _ in range(4)]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    assert {parameter.dtype for parameter in run.network.parameters()} == {torch.float32}


# Parts of a batch


@pytest.fixture
def plain_network(paper_network):
    """Without BatchNorm, so that an image's gradient does not depend on those beside it."""

    def without(module):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.Identity())
            else:
                without(child)

    without(paper_network.network)
    paper_network.network.double()  # in single precision, sums differ between processors
    return paper_network


def copy_of(detector):
    return Detector.of_network(detector.config, detector.class_names, copy.deepcopy(detector.network))


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_batch_in_parts_is_the_step_of_the_whole(plain_network, batches, parts):
    whole = new_trainer(copy_of(plain_network), RECIPES["paper"])
    accumulated = new_trainer(copy_of(plain_network), RECIPES["paper"], accumulate=parts)
    for batch in batches:
        one, other = (run.step(batch, learning_rate=1e-3) for run in (whole, accumulated))
        for ours, theirs in zip(one[:3], other[:3], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    for (name, ours), theirs in zip(whole.network.named_parameters(), accumulated.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_the_norm_of_the_gradient_and_its_clipping(plain_network, batches):
    runs = [new_trainer(copy_of(plain_network), RECIPES["paper"], clip_norm=clip) for clip in (None, 1e9, 0.5)]
    before = [parameter.detach().clone() for parameter in plain_network.network.parameters()]
    steps = [run.step(batches[0], learning_rate=1e-2) for run in runs]
    gradients = [parameter.grad for parameter in runs[0].network.parameters()]
    literal = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    assert literal > 0.5
    for step in steps:
        assert step.gradient_norm.item() == pytest.approx(literal, rel=1e-4)
    for parameters in zip(before, *(run.network.parameters() for run in runs), strict=True):
        start, plain, loose, tight = parameters
        torch.testing.assert_close(plain, loose, rtol=0, atol=0)
        assert not torch.equal(start, tight) or torch.equal(start, plain)
    clipped = [parameter.grad for parameter in runs[2].network.parameters()]
    assert math.sqrt(sum(gradient.square().sum().item() for gradient in clipped)) == pytest.approx(0.5, rel=1e-3)


# Layers that learn less, or not at all


def test_frozen_layers_stay_as_they_are_and_keep_their_statistics(paper_network, batches):
    run = new_trainer(paper_network, RECIPES["modern"], freeze=("backbone.stem", "backbone.stage3.0"))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    for batch in batches:
        run.step(batch, learning_rate=1e-2)
    frozen = ("backbone.stem.", "backbone.stage3.0.")
    for name, value in run.network.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(value, before[name]) == name.startswith(frozen), name
    Detector.of_network(paper_network.config, ("a", "b"), run.network).detect(batches[0].inputs[0])
    assert not run.network.backbone.stem[0][1].training  # also after a validation
    assert run.network.backbone.stage4[0][1].training


def test_a_layer_of_that_very_name_is_frozen_alone():
    network = Detector.create("ssd300-lite0", ["a"], seed=0).network
    freeze(network, ["backbone.block1"])
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("backbone.block1.")}
    freeze(network, ["backbone.block1", "backbone.blo"])
    assert not any(parameter.requires_grad for parameter in network.backbone.block15.parameters())


def test_the_backbones_batch_norm_can_keep_its_statistics_and_learn_its_weights(paper_network, batches):
    run = new_trainer(paper_network, replace(RECIPES["modern"], freeze_batch_norm=True))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.step(batches[0], learning_rate=1e-2)
    for name, value in run.network.state_dict().items():
        if name.startswith("backbone."):
            statistics = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
            assert torch.equal(value, before[name]) == statistics, name


@pytest.mark.parametrize(
    "preset_name, stride, frozen",
    [
        ("ssd300-lite0", 0, []),
        ("ssd300-lite0", 4, ["stem", "block0", "block1", "block2", "block3.layers.expand"]),
        ("ssd300-vgg16", 2, ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]),
        ("ssd300-resnet18", 4, ["conv1", "bn1", "layer1"]),
        ("ssd300-resnet18", 6, ["conv1", "bn1", "layer1"]),
        ("ssdlite320-mobilenetv3", 2, ["features.0", "features.1", "features.2.block.0"]),
        ("ssdlite320-mobilenetv3", 8, [*(f"features.{block}" for block in range(7)), "features.7.block.0"]),  # with SE
    ],
)
def test_a_recipe_may_leave_the_first_stages_as_they_are(preset_name, stride, frozen):
    network = Detector.create(preset_name, ["a"], seed=0).network
    freeze_as(replace(RECIPES["modern"], freeze_stride=stride), network, ["extras"])
    known = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    starts = ("extras.", *(f"backbone.{name}." for name in frozen))
    assert known == {name for name, _ in network.named_parameters() if name.startswith(starts)}
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.training == (not f"{name}.".startswith(starts)), name


def test_the_stride_of_a_stage_is_told_where_its_map_is_rounded_and_its_blocks_have_weights_of_their_own():
    """ConvNeXt's map of stride 8 has 37 rows at 300 pixels, and its blocks scale their features by `gamma`."""
    pytest.importorskip("timm")
    network = Detector.create("timm/convnext_atto", ["a"], seed=0).network
    freeze_as(replace(RECIPES["modern"], freeze_stride=8), network, [])
    learns = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    names = [name for name, _ in network.backbone.named_parameters(prefix="backbone")]
    first = [name for name in names if any(stage in name for stage in ("stem", "stages_0", "stages_1"))]
    assert any(name.endswith("gamma") for name in first)
    assert learns.isdisjoint(first)
    assert {name for name in names if "stages_2.blocks" in name or "stages_3" in name} <= learns


def test_another_run_learns_what_an_earlier_one_froze(paper_network):
    new_trainer(paper_network, RECIPES["modern"], freeze=("backbone",))
    network = new_trainer(paper_network, RECIPES["modern"]).network
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(layer.training for layer in network.modules())


def test_freezing_what_there_is_not(paper_network):
    with pytest.raises(
        ValueError, match=r"no layer's name begins with 'backbone.stage1'; did you mean 'backbone.stage"
    ):
        new_trainer(paper_network, RECIPES["modern"], freeze=("backbone.stage1",))
    with pytest.raises(ValueError, match=r"begins with 'zzz'; there are .*backbone, backbone.stage3, .*extras, "):
        new_trainer(paper_network, RECIPES["modern"], freeze=("zzz",))


def test_the_backbone_has_a_rate_of_its_own(paper_network):
    optimizer = make_optimizer(paper_network.network, replace(RECIPES["paper"], backbone_lr_factor=0.1))
    for name, (rate, _) in groups_by_name(paper_network.network, optimizer).items():
        own = 2.0 if name.endswith(".bias") else 1.0
        assert rate == pytest.approx(own * 0.1 if name.startswith("backbone.") else own), name


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_a_device_without_fused_optimizers_takes_a_state_up_and_gives_it_back(
    paper_network, batches, monkeypatch, recipe
):
    """As MPS does."""
    first, second = (copy.deepcopy(paper_network) for _ in range(2))
    fused = new_trainer(first, RECIPES[recipe])
    fused.step(batches[0], learning_rate=1e-3)
    state = copy.deepcopy(fused.state_dict())
    with monkeypatch.context() as patch:
        optimizer = {"paper": torch.optim.SGD, "modern": torch.optim.AdamW}[recipe]
        patch.setattr(
            torch.optim, optimizer.__name__, lambda *args, fused, **rest: optimizer(*args, fused=False, **rest)
        )
        plain = new_trainer(second, RECIPES[recipe])
    plain.load_state_dict(state, step=1)
    for run in (fused, plain):
        run.step(batches[1], learning_rate=1e-3)
    for name, values in fused.network.state_dict().items():
        torch.testing.assert_close(plain.network.state_dict()[name], values, rtol=1e-4, atol=1e-6)
    state = copy.deepcopy(plain.state_dict())
    again = new_trainer(second, RECIPES[recipe])
    again.load_state_dict(state, step=1)
    assert not again.step(batches[2], learning_rate=1e-3).nonfinite


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_a_state_goes_on_where_axes_lie_in_another_order(plain_network, batches, monkeypatch, recipe):
    """As on another device, or in another precision: a fused optimizer goes through memory as it is."""
    first, second = (copy.deepcopy(plain_network) for _ in range(2))
    run = new_trainer(first, RECIPES[recipe])
    run.step(batches[0], learning_rate=1e-3)
    state = copy.deepcopy(run.state_dict())
    other = {torch.channels_last: torch.contiguous_format, torch.contiguous_format: torch.channels_last}
    monkeypatch.setattr(
        "multibox.training.trainer.memory_format", lambda *args, **rest: other[memory_format(*args, **rest)]
    )
    again = new_trainer(second, RECIPES[recipe])
    again.load_state_dict(state, step=1)
    pairs = zip(run.network.parameters(), again.network.parameters(), strict=True)
    assert any(one.stride() != other.stride() for one, other in pairs)

    def weights(run):
        return torch.cat([values.detach().flatten() for values in run.network.parameters()])

    before = weights(run)
    for each in (run, again):
        each.step(batches[1], learning_rate=1e-3)
    one, other = weights(run), weights(again)
    assert (other - one).norm() < 0.01 * (one - before).norm()


def test_a_state_of_other_frozen_weights_is_refused(paper_network):
    """As many of them, and of the same shapes."""
    state = new_trainer(copy.deepcopy(paper_network), RECIPES["paper"], freeze=("logits.stage4",)).state_dict()
    with pytest.raises(ValueError, match="it trains other weights, or by another optimizer: freeze or recipe differ"):
        new_trainer(paper_network, RECIPES["paper"], freeze=("logits.stage5",)).load_state_dict(state, step=0)


@pytest.mark.parametrize("before, after", [(1.0, 0.1), (0.1, 1.0)])
def test_a_state_goes_on_with_another_rate_of_the_backbone(paper_network, before, after):
    state = new_trainer(copy.deepcopy(paper_network), replace(RECIPES["paper"], backbone_lr_factor=before)).state_dict()
    new_trainer(paper_network, replace(RECIPES["paper"], backbone_lr_factor=after)).load_state_dict(state, step=0)


# Steps that are not finite


@pytest.mark.parametrize("recipe", ["paper", "modern"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_step_that_is_not_finite_leaves_all_as_it_was(paper_network, batches, monkeypatch, recipe, number):
    """The first step or a later one; then the run goes on as if without it."""

    def poisoned(*args):
        targets = make_targets(*args)
        return targets._replace(offsets=targets.offsets / (targets.labels == 0)[..., None])

    disturbed, undisturbed = (new_trainer(copy_of(paper_network), RECIPES[recipe]) for _ in range(2))
    for _ in range(number):
        for run in (disturbed, undisturbed):
            assert not run.step(batches[1], learning_rate=1e-3).nonfinite
    before = {name: value.clone() for name, value in disturbed.network.state_dict().items()}
    with monkeypatch.context() as patch:
        patch.setattr("multibox.ssd.cpu.make_targets", poisoned)
        step = disturbed.step(batches[0], learning_rate=1e-3)
    assert step.nonfinite
    assert not math.isfinite((step.localization + step.confidence + step.gradient_norm).item())
    for name, value in disturbed.network.state_dict().items():
        assert torch.equal(value, before[name]) or name.endswith("num_batches_tracked"), name
    for run in (disturbed, undisturbed):
        assert not run.step(batches[2], learning_rate=1e-3).nonfinite
    for (name, ours), theirs in zip(
        disturbed.network.named_parameters(), undisturbed.network.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)


def test_a_step_gives_the_same_whatever_was_drawn_before_it(paper_network, batches):
    """Dropout and the like depend on the seed and the step, so that a run that was stopped goes on to the bit."""
    paper_network.network.extras["conv6_2"] = torch.nn.Sequential(
        paper_network.network.extras["conv6_2"], torch.nn.Dropout(0.5)
    )
    steps = []
    for seed in (1, 2):
        run = new_trainer(copy_of(paper_network), RECIPES["paper"])
        torch.manual_seed(seed)
        steps.append([run.step(batch, learning_rate=1e-3).localization.item() for batch in batches])
    assert steps[0] == steps[1]
    other = new_trainer(copy_of(paper_network), RECIPES["paper"], seed=5)
    assert other.step(batches[0], learning_rate=1e-3).localization.item() != steps[0][0]


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path):
    """As a user would: torch's compiler does not go through the shape checks of these tests.

    At 64 pixels the last maps are single cells, and BatchNorm over the four values of a batch magnifies every rounding;
    at a usual rate AdamW's first steps do, for they go by the sign of the gradient.
    """
    write_voc({"train": synthetic_scenes(8, seed=1, height=128, width=128)}, tmp_path / "data")
    values = (
        "--model ssd256-tiny --size 128 --steps 3 --batch-size 4 --learning-rate 1e-6"
        " --workers 0 --val-split none --device cpu --precision fp32"
    )
    rows = []
    for flags in ([], ["--compile"]):
        out = tmp_path / f"run{len(rows)}"
        command = ["train", str(tmp_path / "data"), "--out", str(out), *values.split(), *flags]
        subprocess.run(
            [sys.executable, "-m", "multibox", *command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows.append(
                [
                    [float(row[name]) for name in ("localization", "confidence", "gradient_norm")]
                    for row in csv.DictReader(file)
                ]
            )
    np.testing.assert_allclose(*rows, rtol=1e-3)


@pytest.mark.parametrize(
    ("model", "device", "precision", "expected"),
    [
        ("ssd256-tiny", "cpu", "fp32", torch.channels_last),
        ("ssdlite320-mobilenetv3", "cpu", "fp32", torch.channels_last),
        ("ssd300-resnet34", "cpu", "fp32", torch.contiguous_format),
        ("ssd300-resnet34", "cpu", "bf16", torch.channels_last),
        ("ssd300-resnet34", "cuda:0", "fp32", torch.channels_last),
    ],
)
def test_wide_networks_train_channels_first_on_a_cpu(model, device, precision, expected):
    with torch.device("meta"):
        network = SSD(preset(model), num_classes=2)
    assert memory_format(network, device=device, precision=precision) == expected
