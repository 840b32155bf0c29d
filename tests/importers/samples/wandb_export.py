"""A chart of one run, as the CSV button of a W&B panel gives it: sampled, with blanks that are no NaN."""

import csv
from pathlib import Path

FORMAT = "wandb-export"
STEPS = [step * 17 + step * step % 7 for step in range(80)]
ROWS = {
    "loss/train": {step: 4.0 - step / 2048 for step in STEPS} | {STEPS[7]: float("nan"), STEPS[8]: float("inf")},
    "loss/val": {step: 4.5 - step / 2048 for step in STEPS[::20]},
}
BLIND = {"sampled"}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "wandb_export_2026-01-02T03_04_05.csv"
    metrics = {"a - run - train/loss": ROWS["loss/train"], "a - run - eval/loss": ROWS["loss/val"]}
    with path.open("w", newline="") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_ALL)
        rows.writerow(["Step", *(name + mark for name in metrics for mark in ("", "__MIN", "__MAX"))])
        for step in STEPS:
            cells = [_cell(values[step]) if step in values else "" for values in metrics.values() for _ in range(3)]
            rows.writerow([step, *cells])
    return path


def _cell(value: float) -> str:
    return {"nan": "NaN", "inf": "Infinity"}.get(str(value), repr(value))
