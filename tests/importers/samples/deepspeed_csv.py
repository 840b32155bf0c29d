"""DeepSpeed's csv_monitor: a file per tag, samples in place of steps unless the batch size lies beside it."""

from __future__ import annotations

from pathlib import Path

FORMAT = "deepspeed-csv"
LOSSES = {1: 2.5, 2: 2.25, 3: float("nan"), 4: 2.125}
ROWS = {"loss/train": LOSSES, "lr/used": {step: 1e-4 for step in LOSSES}}
BLIND = {"rank"}


def write(folder: Path) -> Path:
    """A job of 64 samples a step that was resumed once, which repeats the header."""
    folder.mkdir(parents=True)
    for tag, values in (("train_loss", LOSSES), ("lr", ROWS["lr/used"])):
        lines = [f"{64 * step},{value}" for step, value in values.items()]
        text = "\n".join([f"step,{tag}", *lines[:2], f"step,{tag}", *lines[2:], ""])
        (folder / f"Train_Samples_{tag}.csv").write_text(text)
    (folder / "deepspeed_config.csv").write_text("key,value\ntrain_batch_size,64\n")
    return folder
