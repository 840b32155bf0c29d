"""A script's own key=value lines."""

from tests.importers.printing import Sample

FORMAT = "printed"
_SAMPLE = Sample(FORMAT, {"loss/train": "train_loss", "lr/used": "lr"})
ROWS, write = _SAMPLE.rows, _SAMPLE.write
BLIND = {"scaled"}
