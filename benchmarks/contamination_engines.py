"""A whole audit from files: one process against two, each detector's share, memory, and `wc -w` as the floor.

    python -m benchmarks contamination

The corpus is plain JSONL of the same text as in the exact scan, many times over. Wall-clock time of the scan, after
a first shard has compiled the kernels; the memory is that of the process and of its largest child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.contamination import corpus
from benchmarks.report import Table, fresh, peak_rss_mb

SHARDS = 8


def run(quick: bool) -> list[Table]:
    """The table of whole scans."""
    with tempfile.TemporaryDirectory(prefix="tv-bench-") as folder:
        root = Path(folder)
        megabytes = _write(root, copies=1 if quick else 16)
        rows = [_row("wc -w", _wc(root), megabytes, None)]
        for name, detectors, workers in (
            ("exact n-grams alone", "exact", 1),
            ("exact n-grams and MinHash", "minhash", 1),
            ("all three detectors", "all", 1),
            ("all three detectors", "all", 2),
        ):
            found = fresh("benchmarks.contamination_engines", str(root), detectors, str(workers))
            count = "1 process" if workers == 1 else f"{workers} processes"
            rows.append(_row(f"{name}, {count}", found["wall_s"], megabytes, found))
    return [
        Table(
            "From JSONL files to partials",
            ["what", "MB of JSONL", "wall, s", "MB/s", "peak memory of a process, MB"],
            rows,
            notes=f"{SHARDS} plain JSONL shards, read, hashed (SHA-256), parsed, split into words, scanned, and their "
            "partials written. Wall-clock time of this machine, in a fresh process with kernels compiled.",
        )
    ]


def _row(name: str, wall_s: float, megabytes: float, found: dict[str, Any] | None) -> list[str]:
    memory = "" if found is None else f"{found['peak_mb']:,.0f}"
    return [name, f"{megabytes:,.0f}", f"{wall_s:.2f}", f"{megabytes / wall_s:,.0f}", memory]


def _write(root: Path, copies: int) -> float:
    _, texts, items = corpus()
    size = 0
    for shard in range(SHARDS):
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[shard::SHARDS]]
        path = root / f"shard{shard}.jsonl"
        path.write_text("".join(lines) * copies, encoding="utf-8")
        size += path.stat().st_size
    (root / "exam.jsonl").write_text("".join(json.dumps({"question": item}) + "\n" for item in items))
    return size / 1e6


def _wc(root: Path) -> float:
    shards = sorted(str(path) for path in root.glob("shard*.jsonl"))
    began = time.perf_counter()
    subprocess.run(["wc", "-w", *shards], check=True, capture_output=True)
    return time.perf_counter() - began


def scan(root: Path, detectors: str, workers: int) -> dict[str, float]:
    """Scan the shards with some of the detectors; the second of two runs counts."""
    import resource

    from checks.contamination.engines import slice as scanning
    from checks.contamination.engines.local import scan_local
    from checks.contamination.plan import Request, prepare

    if detectors != "all":
        scanning.MinHashScanner = _without(scanning.MinHashScanner, detectors == "minhash")  # type: ignore[misc]
    for attempt in range(2):
        shards = [str(path) for path in sorted(root.glob("shard*.jsonl"))]
        request = Request(
            corpus=shards[:1] if attempt == 0 else shards,
            benchmark=[str(root / "exam.jsonl")],
            out=Path(tempfile.mkdtemp(dir=root)),
            semantic="tfidf" if detectors == "all" else "none",
        )
        plan = prepare(request)
        began = time.perf_counter()
        scan_local(plan.missing, plan.work, request.options, workers, lambda more: None)
        wall_s = time.perf_counter() - began
    workers_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return {"wall_s": wall_s, "peak_mb": max(peak_rss_mb(), workers_mb)}


def _without(scanner: Any, keep: bool) -> Any:
    return scanner if keep else _Silent


class _Silent:
    """In the place of a detector that is left out."""

    def __init__(self, *indexes: object) -> None:
        """Needs none of them."""

    def scan(self, *batch: object) -> Any:
        from checks.contamination.records import PAIRS

        return PAIRS.empty_table()

    def finish(self) -> Any:
        return self.scan()


if __name__ == "__main__":
    # Spawned workers import this module again: only the parent scans.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(scan(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
