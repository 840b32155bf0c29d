"""A contamination audit from the request to the signed-off folder.

DIR/report.html            what a person opens first
DIR/audit.json             the same for machines: what was searched, verdict counts, scores, the decision
DIR/items.parquet          one row per benchmark item
DIR/matches.parquet        one row per item, document and detector
DIR/sweep.parquet          scores at every threshold
DIR/clean/, replace.csv, drop_documents.csv
DIR/provenance.json        when, with which command and engine: the only file that differs between two equal audits
DIR/work/                  index and partials, from which a killed audit goes on; may be deleted afterwards
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from checks.contamination import reach
from checks.contamination.detect.detectors import Detectors, load_detectors
from checks.contamination.detect.lsh import ROWS
from checks.contamination.detect.minhash import JACCARD
from checks.contamination.detect.signature_files import scan_signatures
from checks.contamination.detect.signatures import NUM_PERM
from checks.contamination.engines.local import Heard, scan_local
from checks.contamination.engines.on_ray import scan_ray
from checks.contamination.itself import Own, own_shards
from checks.contamination.judge.rules import Rules
from checks.contamination.judge.verdict import judge_items
from checks.contamination.partial import Partial, in_slice, merge, saved, thin
from checks.contamination.plan import SIGNATURES, Plan, Request, prepare, write_json
from checks.contamination.recall.measure import measure_recall
from checks.contamination.records import NS, VERDICTS, Slice, Tally
from checks.contamination.report.exports import write_exports
from checks.contamination.report.page import write_report
from checks.contamination.report.summary import corpus_summary, summarise
from checks.contamination.score.effect import measure
from checks.contamination.score.scores import match_scores, read_scores
from checks.contamination.score.sweep import sweep
from checks.contamination.text.code import N as RUN
from trainvitals.errors import UsageError

ROW_GROUP = 2_000
"""Rows that a reader of one item has to decode at most."""

OWN_COLUMNS = ["benchmark", "item_id", "shard", "level"]

Progress = Callable[[str, int], Heard]
"""Starts a bar: what is done and how many bytes it takes; the answer hears how many more are done."""


@dataclass(frozen=True, slots=True)
class Audit:
    """A finished audit."""

    folder: Path
    summary: dict[str, Any]
    """audit.json."""


def run_audit(request: Request, progress: Progress) -> Audit:
    """Run an audit, or go on with one that was killed or that others have scanned.

    Raises:
        UsageError: an input that cannot be used at all, or a folder that cannot be written.
    """
    began = time.time()
    scores = read_scores(request.scores, request.control)
    plan = prepare(request)
    lost = _scan(request, plan, progress)
    detectors = load_detectors(plan.work)
    done = sorted(saved(plan.work / "partials"))
    merged = merge((Partial.load(plan.work / "partials", index) for index in done), detectors.ngrams.sizes)
    p_value = detectors.semantic.neighbour_p if detectors.semantic else None
    items, matches = judge_items(plan.items, detectors.ngrams, merged, plan.pieces, p_value=p_value)
    own = own_shards(plan.benchmarks, plan.pieces, merged, matches.select(OWN_COLUMNS).to_pandas())
    apart = _without(own, plan, detectors) if own else {}
    corpus = corpus_summary(plan.pieces, merged, lost, plan.left_out)
    items = _undecided(items, reach.shortfall(corpus))
    recall = _recall(request, plan, detectors, items) if request.inject else None
    table = items.to_pandas()
    matched = match_scores(table, scores)
    summary = summarise(
        plan.benchmarks,
        table,
        corpus,
        measure(matched, seed=request.seed),
        matched,
        settings=_settings(request),
        recall=recall,
        itself=apart,
    )
    pq.write_table(items, request.out / "items.parquet", row_group_size=ROW_GROUP)
    pq.write_table(matches, request.out / "matches.parquet", row_group_size=ROW_GROUP)
    pq.write_table(sweep(table, matched), request.out / "sweep.parquet")
    slim = matches.drop_columns(["text", "spans", "item_spans"]).to_pandas()
    write_exports(request.out, plan.benchmarks, table, slim)
    write_json(request.out / "audit.json", summary)
    write_report(request.out)
    write_json(request.out / "provenance.json", _provenance(request, began))
    return Audit(request.out, summary)


def _scan(request: Request, plan: Plan, progress: Progress) -> dict[int, str]:
    missing = plan.missing
    if not missing:
        return {}
    heard = progress("Scanning", sum(piece.size for piece in missing))
    for piece in [piece for piece in missing if piece.kind == SIGNATURES]:
        _scan_signatures(piece, plan)
        heard(piece.size)
    missing = [piece for piece in missing if piece.kind != SIGNATURES]
    engine = scan_ray if request.engine == "ray" else scan_local
    try:
        return engine(missing, plan.work, request.options, request.workers, heard)
    except OSError as error:
        raise UsageError(
            f"The scan stopped: {error}. What is done is kept in {plan.work}; the same command goes on from there."
        ) from error


def _scan_signatures(piece: Slice, plan: Plan) -> None:
    path = Path(piece.shard)
    pairs, cut = thin(in_slice(scan_signatures(path, plan.items), piece.index))
    rows = pq.read_metadata(path).num_rows
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    tally = Tally(records=rows, documents=rows, bytes_read=piece.size, sha256=digest)
    Partial(piece.index, tally, pairs, {}, cut).save(plan.work / "partials")


def _undecided(items: pa.Table, too_little: str) -> pa.Table:
    """Items without a match are not clean where too little was searched: silence says nothing of them."""
    if not too_little:
        return items
    is_clean = pc.equal(items["verdict"], "clean")
    for name, value in (("verdict", "untestable"), ("rule", f"nothing found, but {too_little}")):
        column = pc.if_else(is_clean, value, items[name])
        items = items.set_column(items.schema.get_field_index(name), items.schema.field(name), column)
    return items


def _without(own: Mapping[str, Own], plan: Plan, detectors: Detectors) -> dict[str, Any]:
    """By benchmark, what the audit would have said without the shards that are benchmarks themselves."""
    shards = {shard for found in own.values() for shard in found}
    kept = sorted(piece.index for piece in plan.pieces if piece.shard not in shards)
    done = saved(plan.work / "partials")
    merged = merge(
        (Partial.load(plan.work / "partials", index) for index in kept if index in done), detectors.ngrams.sizes
    )
    p_value = detectors.semantic.neighbour_p if detectors.semantic else None
    items, _ = judge_items(plan.items, detectors.ngrams, merged, plan.pieces, p_value=p_value)
    table = items.select(["benchmark", "verdict"]).to_pandas()
    return {
        name: {
            "files": [{"shard": shard, "how": how} for shard, how in found.items()],
            "documents": merged.documents,
            "verdicts": {v: int(((table["benchmark"] == name) & (table["verdict"] == v)).sum()) for v in VERDICTS},
        }
        for name, found in own.items()
    }


def _recall(request: Request, plan: Plan, detectors: Detectors, items: pa.Table) -> dict[str, Any]:
    clean = [position for position, verdict in enumerate(items["verdict"].to_pylist()) if verdict == "clean"]
    folder = plan.work / "inject"
    return measure_recall(plan.items, clean, plan.pieces, detectors, request.options, folder, request.seed)


def _settings(request: Request) -> dict[str, Any]:
    return {
        "seed": request.seed,
        "thresholds": asdict(Rules()),
        "detectors": {
            "exact": {"n": list(NS)},
            "minhash": {"permutations": NUM_PERM, "rows": ROWS, "scheme": "affine32", "jaccard": JACCARD},
            "code": {"n": [RUN]},
            "semantic": {"model": request.semantic},
        },
    }


def _provenance(request: Request, began: float) -> dict[str, Any]:
    return {
        "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began, 1),
        "command": shlex.join(["trainvitals", *sys.argv[1:]]),
        "engine": request.engine,
        "workers": request.workers,
    }
