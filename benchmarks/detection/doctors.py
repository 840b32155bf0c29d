"""The "training doctors" of PyPI on the same runs: what each finds, and what it cries of nothing.

    python -m venv doctors && doctors/bin/pip install runmedic==0.1.1 trainproof==0.22.0 trainspotter==0.2.6 \
        losslint==0.4.1 gradsnitch==0.1.0
    python -m benchmarks.detection doctors runs/detection --python doctors/bin/python

They read a finished log and name kinds of faults, some without a step. So each is asked twice about a run with a fault:
about the rows before the onset and about all of them; what it says only of those is taken as found, whatever it calls
it. That is kinder than what our own checks must show: a right step. False is every warning or error of a healthy run.
They are fed what they accept: step, training and validation loss, learning rate, gradient norm. Domains, experts, ranks
and layers have no place in what they read.
"""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection.score import Truth, folders, read_truth
from benchmarks.detection.tables import loss_and_norm
from checks.certificates import upper_bound
from trainvitals.store import open_run

HEAD = """
## Other packages on the same runs

Made by `python -m benchmarks.detection doctors runs/detection --python PYTHON`, of an interpreter that has them.
They are fed step, training and validation loss, learning rate and gradient norm as CSV; domains, experts, ranks and
layers have no place in what they read. *Found* is a warning or error that they give of the whole run and not of the
rows before the onset, whatever it says: kinder than the above, which asks for the step. Findings marked `info` are left
out.
"""
DOCTORS = ("runmedic", "trainproof", "trainspotter", "losslint", "gradsnitch")
WORKER = Path(__file__).with_name("doctors_worker.py")
SHOWN = {"loss", "optimisation"}
"""Areas whose faults show in what they are fed."""


def print_doctors(below: Path, python: str) -> None:
    """The table. python: interpreter that has the packages; those that it lacks are named."""
    with tempfile.TemporaryDirectory() as folder:
        asked = [(read_truth(run), *_logs(run, Path(folder))) for run in folders(below)]
        print(HEAD)
        print("| package | found, of faults in loss or norm | of all | healthy runs with an alarm | false alarms | "
              "per 10,000 steps | could not read |\n" + "| --- " * 7 + "|")
        for name in DOCTORS:
            print(_row(name, python, asked), flush=True)


def _logs(run: Path, folder: Path) -> tuple[Path, Path]:
    """The rows before the onset, and all, as CSV."""
    truth = read_truth(run)
    whole, before = folder / f"{run.name}.csv", folder / f"{run.name}-before.csv"
    opened = open_run(run)
    steps, loss, norm = loss_and_norm(opened)
    rates = opened.array("lr/used")
    rate = dict(zip(rates.steps.tolist(), rates.values[:, 0].tolist(), strict=True))
    held = opened.array("loss/val") if opened.has("loss/val") else None
    validation = dict(zip(held.steps.tolist(), held.values.tolist(), strict=True)) if held else {}
    rows = [(step, loss[i], validation.get(step, ""), rate.get(step, ""), norm[i])
            for i, step in enumerate(steps.tolist())]
    _write(whole, rows)
    _write(before, [row for row in rows if truth.healthy or truth.onset is None or row[0] < truth.onset])
    return before, whole


def _write(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(["step", "train_loss", "eval_loss", "learning_rate", "grad_norm"])
        written.writerows(rows)


def _row(name: str, python: str, asked: Sequence[tuple[Truth, Path, Path]]) -> str:
    paths = [str(path) for _, before, whole in asked for path in (before, whole)]
    done = subprocess.run([python, str(WORKER), name], input="\n".join(paths), capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(paths):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return f"| {name} | could not be asked: {last[:90]} |" + " |" * 5
    found = shown = shown_found = faults = false = falsely = healthy = rows = unread = 0
    for (truth, *_), before, whole in zip(asked, answers[::2], answers[1::2], strict=True):
        # The first rows alone may be too few for it: that is no fault of the whole run's answer.
        if "error" in whole:
            unread += 1
            continue
        earlier = before.get("found", [])
        if truth.healthy:
            false, falsely, rows = false + len(earlier), falsely + bool(earlier), rows + truth.rows
            healthy += 1
        else:
            told = bool(set(whole["found"]) - set(earlier)) or len(whole["found"]) > len(earlier)
            in_sight = bool(SHOWN & {*truth.causes})
            faults, found = faults + 1, found + told
            shown, shown_found = shown + in_sight, shown_found + (told and in_sight)
    rate = f"{1e4 * false / max(rows, 1):.2g} (< {1e4 * upper_bound(false, max(rows, 1)):.2g})"
    return (f"| {name} | {shown_found} of {shown} | {found} of {faults} | {falsely} of {healthy} | {false} | {rate} | "
            f"{unread} |")
