"""The run store: append-only segments per writer, compacted to Parquet, read as one run."""

from trainvitals.store.listing import list_runs
from trainvitals.store.reader import Run, open_run
from trainvitals.store.series import Series
from trainvitals.store.writer import FrameWriter, RunWriter

__all__ = ["FrameWriter", "Run", "RunWriter", "Series", "list_runs", "open_run"]
