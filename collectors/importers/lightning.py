"""`metrics.csv` of Lightning's CSVLogger: sparse columns, sorted; rewritten whenever a name is new.

Layout: https://github.com/Lightning-AI/pytorch-lightning/blob/master/src/lightning/fabric/loggers/csv_logs.py
"""

from __future__ import annotations

from pathlib import Path

from collectors.importers.csv_table import CsvTable, form_of
from collectors.importers.importer import BlindSpot

FILE = "metrics.csv"


class LightningCsv(CsvTable):
    """One run: the file, or the version folder that holds it."""

    format = "lightning"
    title = "Lightning metrics.csv"
    generic = False
    blanks = False
    means = {"train_loss_step": "loss/train", "val_loss_epoch": "loss/val", "val_loss": "loss/val"}
    blind = (
        BlindSpot("sampled", ("loss/train", "grad/", "lr/", "throughput/"), "Lightning logs one step in "
                  "log_every_n_steps (50 unless told otherwise), and the file does not say how many",
                  "Train with Trainer(log_every_n_steps=1)"),
        BlindSpot("rank", ("loss/train", "loss/val"), "What self.log gets on rank 0 is what is logged, unless "
                  "sync_dist is set", "Log with self.log(..., sync_dist=True)"),
    )  # fmt: skip

    def recognises(self, path: Path, head: bytes) -> str:
        """By its name and its columns `epoch` and `step`, which come sorted."""
        if path.is_dir():
            file = path / FILE
            return f"{FILE} and hparams.yaml in it" if file.is_file() and (path / "hparams.yaml").is_file() else ""
        form = form_of(head)
        if form is None or form.delimiter != "," or not {"epoch", "step"} <= set(form.header):
            return ""
        in_order = list(form.header) == sorted(form.header)
        return "sorted columns with epoch and step" if in_order and path.name == FILE else ""

    def file_of(self, path: Path) -> Path:
        """The table in a version folder, or the file itself."""
        return path / FILE if path.is_dir() else path
