"""A table as scripts write it, with a loss that is NaN."""

from pathlib import Path

FORMAT = "csv"
ROWS = {
    "loss/train": {step: float("nan") if step == 40 else 4.0 - step / 128 for step in range(1, 61)},
    "lr/used": dict.fromkeys(range(1, 61), 3e-4),
    "my score": {step: step * 0.1 for step in range(1, 61)},
}
BLIND = {"absent"}


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = ["step,train_loss,lr,my score"]
    lines += [f"{step},{loss!r},0.0003,{step * 0.1!r}" for step, loss in ROWS["loss/train"].items()]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return folder / "log.csv"
