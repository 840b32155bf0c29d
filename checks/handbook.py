"""What there is to know of each check, as text: its section of docs/checks.md, and the shipped policy.

Both come from the checks and from what was measured, so neither can say something else than they do.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from checks.calibrate.dials import dials
from checks.certificates import certificate, measured
from checks.policy import shipped
from checks.registry import Check, all_checks

DO: Mapping[str, str] = {
    "loss.divergence": "Go back to a checkpoint before the onset if it does not turn, and look there for what changed.",
    "loss.domain": "Look at what that domain was fed from the onset on; if its share is small, wait for more tokens.",
    "loss.fall": "Compare the batches before and after the onset: seen or leaked text, another mask or reduction.",
    "loss.nonfinite": "Stop, and restart before the onset; look at that step's batch, loss scale and largest weights.",
    "loss.noise": "Compare batch size, mask and reduction before and after it; less scatter may be repeated data.",
    "loss.plateau": "Check that the optimizer holds the model's parameters, and that the rate is what was planned.",
    "loss.repeats": "See whether the loss is still computed: a cached batch, a detached graph, a logger that is stuck.",
    "loss.resolution": "Compute and log the loss in float32; what it cannot show, no check can see.",
    "loss.spike": "Look at the batches of the onset; if it recurs, restart some 100 steps before and skip them.",
    "loss.validation": "Hold it against the training loss: both up is the model, validation alone is fit or leak.",
    "grad.explosion": "Look at the batches before the onset and the layer that moved first; clip, or lower the rate.",
    "grad.loss_scale": "Look at the step at which it fell for values beyond float16; bfloat16 needs no scaler.",
    "grad.skipped": "Look at the skipped steps' batches and largest gradients; steps skipped are data lost.",
    "grad.vanishing": "See whether the layer is detached, frozen or saturated, and whether its loss still reaches it.",
    "lr.jump": "Compare the scheduler's state with the checkpoint's, and what the loop sets by hand.",
    "lr.plan": "Compare the scheduler with the plan at the onset: a resume without its state is the usual cause.",
    "optimizer.reset": "Load the optimizer's state with the weights; without it, warm the rate up again.",
    "update.jump": "See whether the optimizer's state was lost at a resume, and warm up again if it was.",
    "update.lost": "See whether something copies old weights back, or whether they are kept in too few bits.",
    "update.stopped": "See whether the optimizer holds this layer's parameters, and whether something restores them.",
    "weights.replicas": "Stop, and restart from a checkpoint before the onset; take that rank's machine out.",
    "router.collapse": "Check the balancing loss and its sign, and router precision; restart before the onset.",
    "router.dead": "Check the balancing loss or bias; an expert that gets no token does not come back by itself.",
    "router.overload": "Check the balancing loss; tokens beyond the capacity are dropped or slow the step.",
    "data.corrupt": "Look at what the loader gave there: a worker that hangs, a sampler begun anew, a damaged shard.",
    "data.garbled": "Decode some rows of that domain; look for another tokenizer, broken encodings, lost separators.",
    "data.mix": "Compare the loader's shares with the plan; a domain that ran dry shows as one that vanishes.",
    "data.token_drift": "Look at that domain's new shards: another tokenizer, language, format, or a repeat.",
    "data.unattributed": "Let every batch carry its domain; what is not named cannot be held against the plan.",
    "throughput.data_wait": "Add loader workers or prefetch, and look at the storage from the onset on.",
    "throughput.drop": "Look at what began at the onset: another job, throttling, longer sequences, logging.",
    "throughput.straggler": "Look at that rank's machine: clocks, memory errors, network; replace it if it stays.",
    "telemetry.blind_spots": "Follow the remedy of each blind spot, or read the verdicts with it in mind.",
    "telemetry.health": "Follow the sentence: what is not recorded cannot be judged.",
}
"""What to do about an alarm, where the docstring has no such part. The finding itself names steps, layers, domains."""
ELSE = "The finding says at which step, layer or domain to look, and for what."


def section(check: Check) -> str:
    """All about one check, as Markdown below a heading of its name."""
    return f"### {check.name}\n\n{body(check)}"


def body(check: Check) -> str:
    """The same without the heading."""
    why, how, do = _parts(check)
    lines = [check.meaning, f"Why it matters: {why}"]
    if how:
        lines.append(f"How to read it: {how}")
    lines.append(f"What to do: {do}")
    lines.append(f"Reads {_names(check.reads)}" + (f"; sharpened by {_names(check.uses)}." if check.uses else "."))
    if source := _source(check):
        lines.append(f"Threshold: {source}.")
    lines.append(f"Error certificate: {certificate(check.name).words}")
    if settings := _settings(check):
        lines.append(f"Settings: {settings}.")
    if check.refs:
        lines.append("Source: " + ", ".join(f"<{url}>" for url in check.refs) + ".")
    return "\n\n".join(lines)


def _parts(check: Check) -> tuple[str, str, str]:
    text = " ".join((inspect.getdoc(check.function) or "").partition("\n\n")[2].split())
    text, _, do = text.partition(" What to do: ")
    why, _, how = text.removeprefix("Why it matters: ").partition(" How to read it: ")
    return why, how, do or DO.get(check.name, ELSE)


def _settings(check: Check) -> str:
    own = [f"`{name}` {value}" for name, value in check.defaults.items()]
    scans = dict.fromkeys(dial.name for dial in dials() if check.name in dial.checks and dial.name != check.name)
    return ", ".join([*own, *(f"those of `[{scan}]` in a policy" for scan in scans)])


def _source(check: Check) -> str:
    own = getattr(sys.modules[check.function.__module__], "SOURCE", "")
    if own or check.area != "loss":
        return str(own)
    from checks.loss._stream import SOURCE

    return SOURCE


def _names(signals: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in signals) or "the run's record"


@cache
def policy_text() -> str:
    """The shipped policy: every setting, and above it how often its check was wrong."""
    on = measured().get("made", {})
    lines = [
        "# The shipped thresholds, and how often each check was wrong under them. Made by python docs/make_checks.py.",
        "# Copy what you want to change into a file of your own: trainvitals check RUN --policy FILE.",
        f"# Measured on {on.get('on', 'nothing yet')},",
        f"# by {on.get('command', 'python -m benchmarks.detection certify')}.",
    ]
    named = {check.name: check for check in all_checks()}
    for name, settings in shipped().items():
        lines += ["", f"[{name}]"]
        if name in named:
            lines += [f"# {named[name].meaning}", f"# {_sentence(certificate(name).words)}"]
        else:
            served = next((dial.checks for dial in dials() if dial.name == name), ())
            lines += ["# Log units (0.005 is +0.5 %, 0.405 is x1.5); raw_... in deviations of a row; alpha a row."]
            lines += [f"# {check}: {certificate(check).words}" for check in served]
        lines += [_setting(key, value) for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def _setting(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"{key} = {str(value).lower()}"
    return f"{key} = {value!r}" if isinstance(value, int | float) else f"# {key} is not set"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]
