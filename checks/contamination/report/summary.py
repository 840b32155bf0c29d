"""audit.json: what was searched, what was found, and the decision. Equal inputs give equal bytes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from checks.contamination import reach
from checks.contamination.partial import Merged
from checks.contamination.records import NS, VERDICTS, Benchmark, Problem, Slice
from checks.contamination.score.decision import decide
from checks.contamination.score.effect import Effect, contaminated_share
from checks.contamination.score.scores import Matched
from trainvitals import __version__

FORMAT = 1
LIBRARIES = ("numpy", "numba", "pyarrow", "pandas", "scipy", "datasketch")
PALM = 0.7
"""Share of 8-grams seen from which PaLM calls an item contaminated (https://arxiv.org/abs/2204.02311, section 8)."""


def corpus_summary(
    pieces: Sequence[Slice], merged: Merged, lost: Mapping[int, str], left_out: Sequence[str] = ()
) -> dict[str, Any]:
    """What was read, shard by shard, in the order of reading; the hash of the whole is that of its shards' hashes.

    A shard read in several slices has the hash of its slices' hashes, each that of a byte range. The `columns` of a
    shard are those that its text was read from. `text_bytes` were searched, `unsearched_bytes` of text were not, and
    `no_text_bytes` are strings that are no text; `unsearched` and `no_text` say which, by column and reason.
    """
    shards: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for piece in pieces:
        row = shards.setdefault(
            piece.shard,
            {
                "shard": piece.shard,
                "kind": piece.kind,
                "bytes": 0,
                "sha256": [],
                "slices": 0,
                "records": 0,
                "documents": 0,
                "skipped": 0,
                "text_bytes": 0,
                "unsearched_bytes": 0,
                "no_text_bytes": 0,
                "unsearched": {},
                "no_text": {},
                "columns": set(),
            },
        )
        row["slices"] += 1
        if piece.index in lost:
            problems.append(Problem(piece.shard, _range(piece), f"Not scanned: {lost[piece.index]}.", 0))
            continue
        tally = merged.tallies[piece.index]
        row["sha256"].append(tally.sha256)
        row["bytes"] += tally.bytes_read
        for name in ("records", "documents", "skipped", "text_bytes"):
            row[name] += getattr(tally, name)
        for name, counted in (("unsearched", tally.unsearched), ("no_text", tally.no_text)):
            row[f"{name}_bytes"] += sum(counted.values())
            for column, size in counted.items():
                row[name][column] = row[name].get(column, 0) + size
        row["columns"] |= set(tally.columns)
        problems += tally.problems
    for row in shards.values():
        row["sha256"] = _combined(row["sha256"])
        row["columns"] = sorted(row["columns"])
        for name in ("unsearched", "no_text"):
            row[name] = dict(sorted(row[name].items(), key=lambda entry: (-entry[1], entry[0])))
    counts = ("records", "documents", "skipped", "text_bytes", "unsearched_bytes", "no_text_bytes")
    totals = {name: sum(row[name] for row in shards.values()) for name in counts}
    return {
        "sha256": _combined([row["sha256"] for row in shards.values()], always=True),
        **totals,
        "bytes_read": sum(row["bytes"] for row in shards.values()),
        "lost_slices": len(lost),
        "matches_cut": merged.cut,
        "left_out": list(left_out),
        "shards": list(shards.values()),
        "problems": [asdict(problem) for problem in problems],
    }


def _range(piece: Slice) -> str:
    if piece.start == 0 and piece.stop is None:
        return "all of it"
    return f"from {piece.start:,} to {'the end' if piece.stop is None else f'{piece.stop:,}'}"


def _combined(hashes: Sequence[str], *, always: bool = False) -> str:
    if len(hashes) == 1 and not always:
        return hashes[0]
    return hashlib.sha256("".join(f"{one}\n" for one in hashes).encode()).hexdigest()


def benchmark_summary(
    benchmark: Benchmark, items: pd.DataFrame, effects: Sequence[Effect], itself: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Verdict counts of one benchmark. items: its rows of items.parquet; itself: its own files in the corpus."""
    verdicts = {verdict: int((items["verdict"] == verdict).sum()) for verdict in VERDICTS}
    eligible = len(items) - verdicts["untestable"]
    kinds = items.loc[items["evidence_kind"] != "", "evidence_kind"].value_counts().sort_index()
    hits = {str(n): items[f"any{n}"].dropna().astype(bool) for n in NS}
    return {
        "name": benchmark.name,
        "source": benchmark.source,
        "sha256": benchmark.sha256,
        "items": len(items),
        "roles": dict(benchmark.roles),
        "verdicts": verdicts,
        "eligible": eligible,
        "share": contaminated_share(verdicts["contaminated"], eligible),
        "kinds": {str(kind): int(count) for kind, count in kinds.items()},
        "any_hit": {n: int(hit.sum()) for n, hit in hits.items()},
        "covered8": int((items["covered8"] >= PALM).sum()),
        "eligible_n": {n: len(hit) for n, hit in hits.items()},
        "scores": [effect.to_json() for effect in effects],
        "problems": [asdict(problem) for problem in benchmark.problems],
        "itself": itself,
    }


def searched(corpus: Mapping[str, Any]) -> str:
    """What the absence of a match means, in one sentence."""
    no_text = corpus.get("no_text_bytes") or 0
    beside = f" Not counted as text: {no_text:,} bytes of links, hashes, times, ids and labels." if no_text else ""
    n = corpus["documents"]
    return (
        f"Searched were {n:,} document{'' if n == 1 else 's'}: {reach.rests_on(corpus)}.{beside} What was not found "
        "was not found there: no proof for any other text."
    )


def summarise(
    benchmarks: Sequence[Benchmark],
    items: pd.DataFrame,
    corpus: Mapping[str, Any],
    effects: Mapping[str, Sequence[Effect]],
    scores: Matched,
    *,
    settings: Mapping[str, Any],
    recall: Mapping[str, Any] | None,
    itself: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The whole of audit.json.

    Args:
        benchmarks: as read.
        items: items.parquet.
        corpus: `corpus_summary`.
        effects: by benchmark, `effect.measure`.
        scores: as matched, for its problems.
        settings: seed, thresholds and detectors.
        recall: of planted items; None where none were planted.
        itself: by benchmark, the shards that are its own file, and the verdicts without them.
    """
    by_name = dict(tuple(items.groupby("benchmark", sort=False)))
    audit = {
        "format": FORMAT,
        "tool": {"name": "trainvitals", "version": __version__},
        "searched": searched(corpus),
        "corpus": corpus,
        "benchmarks": [
            benchmark_summary(b, by_name.get(b.name, items.iloc[:0]), effects.get(b.name, ()), itself.get(b.name))
            for b in benchmarks
        ],
        "score_problems": [asdict(problem) for problem in scores.problems],
        **settings,
        "versions": {"python": platform.python_version(), **{n: importlib.metadata.version(n) for n in LIBRARIES}},
        "inject": recall,
    }
    decision = decide(audit)
    return {**audit, "decision": {"level": decision.level, "sentence": decision.sentence}}
