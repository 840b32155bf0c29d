"""How fast logs of other tools are read, beside those tools' own readers: same file, same process, turn by turn.

    python -m benchmarks importers [--quick]

CPU time of the process, so that a busy machine changes little; the median of the rounds. Our times are twice: the rows
alone, and all that `trainvitals import` does with them, the run folder on disk included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Table
from collectors.importers.door import sessions
from collectors.importers.importer import Importer, Rows
from collectors.importers.swanlab import SwanLab
from collectors.importers.tensorboard import TensorBoard
from collectors.importers.wandb import Wandb
from tests.importers.writing import field, framed
from trainvitals.formulas import given
from trainvitals.store import open_run

TAGS = ("train/loss", "train/grad_norm", "train/lr", "train/tokens", "perf/mfu")
Reader = Callable[[Path], int]


def run(quick: bool) -> list[Table]:
    """Tables of the formats."""
    warnings.simplefilter("ignore")
    rounds = 3 if quick else 7
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        return [_events(root, 20_000 if quick else 100_000, rounds), _logs(root, 1_000 if quick else 4_000, rounds)]


def _events(root: Path, values: int, rounds: int) -> Table:
    """Event files beside tensorboard's readers and tbparse."""
    from torch.utils.tensorboard import SummaryWriter

    folder = root / "events"
    writer = SummaryWriter(str(folder), max_queue=values)
    for step in range(values // len(TAGS)):
        for tag in TAGS:
            writer.add_scalar(tag, 1 / (step + 1), step)
    writer.close()
    readers: dict[str, Reader] = {
        "ours, rows": _rows_of(TensorBoard()), "ours, import into a run folder": _imported,
        "tensorboard EventAccumulator": _accumulated, "tensorboard EventFileLoader": _loaded,
    }  # fmt: skip
    try:
        import tbparse  # noqa: F401

        readers["tbparse SummaryReader"] = _tbparsed
    except ImportError:
        pass
    return _table(f"Event files: {values:,} scalars of {len(TAGS)} tags, written by SummaryWriter", readers, folder,
                  rounds, values)


def _logs(root: Path, rows: int, rounds: int) -> Table:
    """W&B's and SwanLab's own logs: wandb has no reader of them any more, and swanlab's gives no rows."""
    names = [f"layer_{i:02}/grad_norm" for i in range(20)]
    history = []
    for step in range(rows):
        items = [field(1, field(2, name) + field(16, repr((step + i) / 7))) for i, name in enumerate(names)]
        items += [field(1, field(2, "_step") + field(16, str(step)))]
        history += [field(2, b"".join(items) + field(2, field(1, step)))] + [field(3, b"".join(items[:8]))] * 2
    wandb = root / "run-a.wandb"
    wandb.write_bytes(framed(b":W&B\xe1\xbe\x00", history))
    scalars = [field(13, field(1, name) + field(2, step) + field(5, field(1, step / 7))) for step in range(rows)
               for name in names]
    swanlab = root / "run-a.swanlab"
    swanlab.write_bytes(framed(b":SWL\xd6\xe1\x02", scalars))
    columns = ["log", "MB", "reader", "s of CPU", "values / s"]
    table = Table(f"Framed logs: {rows:,} rows of {len(names)} numbers", columns)
    for path, importer in ((wandb, Wandb()), (swanlab, SwanLab())):
        found = _timed({"rows": _rows_of(importer), "import into a run folder": _imported}, path, rounds)
        for name, seconds in found.items():
            table.rows.append([importer.title, f"{path.stat().st_size / 1e6:.1f}", name, f"{seconds:.2f}",
                               f"{rows * len(names) / seconds:,.0f}"])
    return table


def _table(title: str, readers: dict[str, Reader], path: Path, rounds: int, values: int) -> Table:
    found = _timed(readers, path, rounds)
    ours = found["ours, rows"]
    table = Table(title, ["reader", "s of CPU", "values / s", "times our rows"])
    for name, seconds in found.items():
        table.rows.append([name, f"{seconds:.2f}", f"{values / seconds:,.0f}", f"{seconds / ours:.1f}"])
    return table


def _timed(readers: dict[str, Reader], path: Path, rounds: int) -> dict[str, float]:
    """Reader -> CPU seconds, the median of the rounds; every round takes all of them in turn."""
    taken: dict[str, list[float]] = {name: [] for name in readers}
    counts = set()
    for _ in range(rounds):
        for name, reader in readers.items():
            begin = time.process_time()
            counts.add(reader(path))
            taken[name].append(time.process_time() - begin)
    assert len(counts) == 1, counts
    return {name: statistics.median(times) for name, times in taken.items()}


def _rows_of(importer: Importer) -> Reader:
    def read(path: Path) -> int:
        [one] = importer.runs(path)
        return sum(int(given(values).sum()) for item in importer.read(one, {}) if isinstance(item, Rows)
                   for values in item.columns.values())
    return read


def _imported(path: Path) -> int:
    with tempfile.TemporaryDirectory() as place:
        [one] = sessions(path, run=Path(place) / "run")
        one.look()
        one.close()
        return int(open_run(one.folder).signals()["points"].sum())


def _accumulated(path: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(path), size_guidance={"scalars": 0})
    log.Reload()
    return sum(len(log.Scalars(tag)) for tag in log.Tags()["scalars"])


def _loaded(path: Path) -> int:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sum(len(event.summary.value) for file in path.iterdir() for event in EventFileLoader(str(file)).Load())


def _tbparsed(path: Path) -> int:
    from tbparse import SummaryReader

    return len(SummaryReader(str(path)).scalars)
