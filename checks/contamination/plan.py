"""What an audit is asked for, and its work folder: the index, the list of slices, and the partials of those scanned.

A work folder belongs to one set of inputs. The same request finds it again and goes on; any other is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from checks.contamination.detect.detectors import TFIDF, store_detectors
from checks.contamination.detect.signature_files import check_signatures
from checks.contamination.partial import saved
from checks.contamination.readers.benchmark import parse_roles, read_benchmarks
from checks.contamination.readers.corpus import CorpusOptions, plan_slices
from checks.contamination.readers.tokens import check_tokenizer
from checks.contamination.records import Benchmark, Item, Slice
from trainvitals import __version__
from trainvitals.errors import UsageError

SIGNATURES = "signatures"
"""Kind of the slices that hold signatures instead of text."""
OURS = "started"
"""File of a work folder that says that an audit made it, before its plan does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for."""

    corpus: Sequence[str]
    benchmark: Sequence[str]
    out: Path
    signatures: Sequence[str] = ()
    """Files of stored MinHash signatures, beside or instead of a corpus."""
    scores: Sequence[str] = ()
    control: Sequence[str] = ()
    engine: str = "local"
    workers: int = 1
    inject: bool = False
    semantic: str = TFIDF
    roles: str | None = None
    """`question=COL,answer=COL`, columns of the benchmarks by role; guessed without."""
    options: CorpusOptions = field(default_factory=CorpusOptions)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """An audit ready to scan."""

    work: Path
    benchmarks: Sequence[Benchmark]
    items: Sequence[Item]
    """Of all benchmarks, in the order in which PAIRS numbers them."""
    pieces: Sequence[Slice]
    left_out: Sequence[str] = ()
    """What lies among the corpus and is no text, one sentence a kind."""

    @property
    def missing(self) -> list[Slice]:
        """Slices not scanned yet."""
        done = saved(self.work / "partials")
        return [piece for piece in self.pieces if piece.index not in done]


def prepare(request: Request) -> Plan:
    """Read the benchmarks, cut the corpus into slices, and build the index, or find what an earlier run built.

    Raises:
        UsageError: an input that cannot be used at all, or a folder that holds another audit.
    """
    benchmarks = read_benchmarks(request.benchmark, parse_roles(request.roles) if request.roles else None)
    items = [item for benchmark in benchmarks for item in benchmark.items]
    left_out: list[str] = []
    pieces: list[Slice] = []
    if request.corpus:
        pieces = plan_slices(request.corpus, request.options, out=str(request.out), left_out=left_out)
    pieces += [
        Slice(len(pieces) + number, path, SIGNATURES, size=os.path.getsize(path) if os.path.exists(path) else 0)
        for number, path in enumerate(request.signatures)
    ]
    if not pieces:
        raise UsageError("An audit needs something to search. Name --corpus or --signatures.")
    # A plan is made for good inputs only: the corrected command would be another audit, and refused.
    check_tokenizer(request.options)
    for path in request.signatures:
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path} is no file. Name Parquet files of signatures.")
        check_signatures(Path(path))
    work, key = request.out / "work", _fingerprint(request, benchmarks, items, pieces)
    plan = work / "plan.json"
    if plan.exists():
        if json.loads(plan.read_text())["fingerprint"] != key:
            raise UsageError(
                f"{request.out} holds another audit (other inputs or another version). Name another --out or delete it."
            )
    elif (request.out / "audit.json").exists():
        raise UsageError(f"{request.out} holds an audit without its work folder. Choose another --out, or delete it.")
    else:
        _make_work(request.out, work)
        store_detectors(items, request.semantic, work)
        # Written last: an index that was cut off by a kill is built again.
        slices = [asdict(piece) for piece in pieces]
        write_json(plan, {"fingerprint": key, "options": asdict(request.options), "slices": slices})
    return Plan(work, benchmarks, items, pieces, left_out)


def _make_work(out: Path, work: Path) -> None:
    """An empty work folder; one that a kill left half prepared is made anew, and nobody else's files are touched."""
    try:
        strange = out.exists() and any(not path.name.startswith(".") for path in out.iterdir())
        if strange and not (work / OURS).exists():
            raise UsageError(f"{out} holds files that are no audit. Name a new or an empty folder with --out.")
        work.mkdir(parents=True, exist_ok=True)
        (work / OURS).touch()
        for left in work.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        (work / "partials").mkdir()
    except OSError as error:
        raise UsageError(f"{out} cannot be a folder: {error.strerror}. Choose another --out.") from error


def planned(work: Path) -> tuple[list[Slice], CorpusOptions]:
    """The slices and options of a work folder that `prepare` made: all that a worker elsewhere needs to know.

    Raises:
        UsageError: the folder holds no plan.
    """
    path = work / "plan.json"
    if not path.exists():
        raise UsageError(f"{work} holds no plan of an audit. Prepare one first.")
    raw = json.loads(path.read_text())
    options = {**raw["options"], "text_columns": tuple(raw["options"]["text_columns"])}
    return [Slice(**piece) for piece in raw["slices"]], CorpusOptions(**options)


def _fingerprint(
    request: Request, benchmarks: Sequence[Benchmark], items: Sequence[Item], pieces: Sequence[Slice]
) -> str:
    """Of all that decides what a partial holds. A shard that changed in size or time is another shard."""
    stamps = {piece.shard: os.stat(piece.shard).st_mtime_ns for piece in pieces if os.path.exists(piece.shard)}
    known = {
        "version": __version__,
        "benchmarks": [benchmark.sha256 for benchmark in benchmarks],
        "items": [[item.benchmark, item.item_id, dict(item.fields)] for item in items],
        "slices": [asdict(piece) for piece in pieces],
        "stamps": stamps,
        "options": asdict(request.options),
        "semantic": request.semantic,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON, whole or not at all."""
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    scratch.replace(path)
