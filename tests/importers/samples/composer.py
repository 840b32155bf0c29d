"""Composer's console."""

from tests.importers.printing import Sample

FORMAT = "composer"
_SAMPLE = Sample(FORMAT, {"loss/train": "loss/train/total", "grad/norm": "l2_norm/grad/global"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"rank"}
