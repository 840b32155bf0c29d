"""The rules that training libraries ship, on the same rows: each says at which rows it would have alarmed.

Written from their sources, a few lines each; what a library computes from what it sees at the step, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
Rule = Callable[[Rows, Rows], NDArray[np.bool_]]
"""Loss and gradient norm, one value per step; NaN where there is none -> which steps alarm."""


def _beyond_deviations(values: Rows, window: int, least: int, deviations: float) -> NDArray[np.bool_]:
    """Whether a value is more than so many standard deviations above the mean of the window before it."""
    alarm = np.zeros(len(values), bool)
    for i in range(least, len(values)):
        past = values[max(0, i - window) : i]
        alarm[i] = values[i] > past.mean() + deviations * past.std()
    return alarm


def olmo_core(loss: Rows, norm: Rows) -> NDArray[np.bool_]:
    """Six deviations of the last 128, loss or norm: allenai/OLMo-core, train/callbacks/stability_monitor.py."""
    return _beyond_deviations(loss, 128, 64, 6) | _beyond_deviations(norm, 128, 64, 6)


def llm_foundry(loss: Rows, norm: Rows) -> NDArray[np.bool_]:
    """Twice the mean of the window in five rows running, or half a window above the cap.

    Source: mosaicml/llm-foundry, callbacks/kill_loss_spike_callback.py; window 5 % of the run, at least 100, cap 10.
    """
    window = max(100, len(loss) // 20)
    alarm, running = np.zeros(len(loss), bool), 0
    for i in range(window, len(loss)):
        past = loss[i - window : i]
        running = running + 1 if loss[i] >= 2 * past.mean() else 0
        cap = min(10.0, float(np.max(loss[:window])))
        alarm[i] = running >= 5 or (past > cap).sum() >= window / 2
    return alarm


def megatron(loss: Rows, norm: Rows) -> NDArray[np.bool_]:
    """Not finite, or ten times the largest of the first 100: NVIDIA/Megatron-LM, pretrain_gpt.py, SPIKY_LOSS_FACTOR."""
    largest = np.maximum.accumulate(np.where(np.isfinite(loss), loss, -np.inf))[min(99, len(loss) - 1)]
    return ~np.isfinite(loss) | (loss > 10 * largest)


def lightning(loss: Rows, norm: Rows) -> NDArray[np.bool_]:
    """As far from the mean of ten as twice the mean: Lightning-AI, fabric/utilities/spike.py (mode min, atol 0)."""
    alarm = ~np.isfinite(loss)
    for i in range(10, len(loss)):
        mean = loss[i - 10 : i].mean()
        alarm[i] |= loss[i] > mean and loss[i] - mean >= 2 * abs(mean)
    return alarm


def zclip(loss: Rows, norm: Rows) -> NDArray[np.bool_]:
    """The norm's z-score above 2.5 against moving averages, alpha .97, 25 rows to warm up: bluorion-com/ZClip."""
    alarm = np.zeros(len(norm), bool)
    if len(norm) <= 25:
        return alarm
    mean, variance = float(norm[:25].mean()), float(norm[:25].var())
    for i in range(25, len(norm)):
        z = (norm[i] - mean) / (variance**0.5 + 1e-6)
        alarm[i] = z > 2.5
        kept = mean + 2.5 * variance**0.5 * 2.5 / z if z > 2.5 else norm[i]
        mean, variance = 0.97 * mean + 0.03 * kept, 0.97 * variance + 0.03 * (kept - mean) ** 2
    return alarm


def rolling_median(loss: Rows, norm: Rows) -> NDArray[np.bool_]:
    """Six robust deviations above the median of the last 128: what many write themselves."""
    alarm = np.zeros(len(loss), bool)
    for i in range(32, len(loss)):
        past = loss[max(0, i - 128) : i]
        median = np.median(past)
        alarm[i] = loss[i] > median + 6 * 1.4826 * np.median(np.abs(past - median))
    return alarm


RULES: Mapping[str, Rule] = {
    "OLMo-core": olmo_core, "llm-foundry": llm_foundry, "Megatron-LM": megatron, "Lightning": lightning,
    "ZClip": zclip, "median + 6 MAD": rolling_median}


def episodes(alarm: NDArray[np.bool_], gap: int = 10) -> list[int]:
    """Rows at which a run of alarms begins; alarms less than `gap` rows apart are one."""
    rows = np.flatnonzero(alarm)
    return [int(row) for i, row in enumerate(rows) if i == 0 or row - rows[i - 1] >= gap]
