"""The precisions of a network's convolutions, and a trial that finds the faster one on this machine."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]

MIN_SPEEDUP = 1.1
"""On a CPU, bf16 must be at least this many times as fast as fp32 to be chosen: it rounds to 8 bits."""

TRIAL_ROUNDS, TRIAL_SECONDS = 5, 6.0
"""Limits of a trial of both precisions: the number of rounds, and the approximate seconds."""


def has_bf16(device: torch.device) -> bool:
    """Returns whether the device has instructions for bf16; elsewhere it is emulated, and slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.11
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def faster_precision(trials: Mapping[Precision, Callable[[], object]]) -> tuple[Precision, str]:
    """Returns the faster of both precisions on this machine, and a text about the measurement.

    Args:
        trials: A function for each precision that runs the network once.
    """
    seconds = time_side_by_side(trials)
    speedup = seconds["fp32"] / seconds["bf16"]
    measured = f"{seconds['fp32']:.2g} s in fp32 and {seconds['bf16']:.2g} s in bf16, a ratio of {speedup:.2f}"
    return ("bf16" if speedup >= MIN_SPEEDUP else "fp32"), measured


def time_side_by_side(trials: Mapping[Precision, Callable[[], object]]) -> dict[Precision, float]:
    """Returns the median seconds of each function. They take turns, so that other work slows all of them alike.

    The first round, which prepares the kernels, counts only if it takes so long that there is no other.
    """
    began = time.monotonic()
    laps: dict[Precision, list[float]] = {name: [] for name in trials}
    for _ in range(1 + TRIAL_ROUNDS):
        for name, run in trials.items():
            start = time.perf_counter()
            run()
            laps[name].append(time.perf_counter() - start)
        if time.monotonic() - began > TRIAL_SECONDS:
            break
    return {name: median(each[1:] or each) for name, each in laps.items()}
