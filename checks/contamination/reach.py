"""How much was searched of what was read: what a sentence that finds nothing rests on. All from audit.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SEARCHED_SHARE = 0.95
"""Share of a shard's text that must have been searched before finding nothing says anything; convention. The rest are
columns that `--text-column` does not name, and records that could not be read."""


def share(read: Mapping[str, Any]) -> float:
    """Share of the text bytes that was searched, of the corpus or of one of its shards; 1 where there was no text."""
    searched = int(read.get("text_bytes") or 0)
    total = searched + int(read.get("unsearched_bytes") or 0)
    return searched / total if total else 1.0


def shortfall(corpus: Mapping[str, Any]) -> str:
    """Why too little was searched to find nothing, in a clause; empty where it was enough in every shard."""
    poor = sorted((shard for shard in _shards(corpus) if share(shard) < SEARCHED_SHARE), key=share)
    if not poor and share(corpus) >= SEARCHED_SHARE:
        return ""
    if not poor or len(_shards(corpus)) == 1:
        return f"only {_percent(share(corpus))} of the text bytes were searched{_largest(corpus['shards'])}"
    more = f" and too little of {len(poor) - 1:,} more" if len(poor) > 1 else ""
    return (
        f"only {_percent(share(poor[0]))} of the text bytes of {poor[0]['shard']} were searched"
        f"{_largest(poor[:1])}{more}"
    )


def _largest(shards: Sequence[Mapping[str, Any]]) -> str:
    """What most of the unsearched text is."""
    sizes: dict[str, int] = {}
    for shard in shards:
        for name, size in (shard.get("unsearched") or {}).items():
            sizes[name] = sizes.get(name, 0) + size
    return f" (most of the rest: {max(sizes, key=lambda name: sizes[name])[:80]})" if sizes else ""


def rests_on(corpus: Mapping[str, Any]) -> str:
    """Bytes searched of bytes read, shards, gaps: "9,876 of 9,876 bytes of text searched in 2 shards, no gap".

    Empty where nothing was counted.
    """
    if "text_bytes" not in corpus:
        return ""
    searched = int(corpus.get("text_bytes") or 0)
    total = searched + int(corpus.get("unsearched_bytes") or 0)
    gaps = [problem for problem in corpus.get("problems") or () if problem.get("gap")]
    said = f"{len(gaps):,} gap{'' if len(gaps) == 1 else 's'}" if gaps else "no gap"
    part = "" if searched == total else f" ({_percent(share(corpus))})"
    return f"{searched:,} of {total:,} bytes of text{part} searched in {shards_searched(corpus)}, {said}"


def shards_searched(corpus: Mapping[str, Any]) -> str:
    """The number of shards that documents came from, of how many where that is not all: "1 of 2 shards"."""
    total = len(_shards(corpus))
    with_documents = sum(shard["documents"] > 0 for shard in _shards(corpus))
    some = f"{with_documents:,} of " if with_documents < total else ""
    return f"{some}{total:,} shard{'' if total == 1 else 's'}"


def itself(benchmark: Mapping[str, Any]) -> str:
    """That the benchmark's own file is in the corpus, and what is found without it; empty where it is not."""
    own = benchmark.get("itself")
    if not own:
        return ""
    files = own["files"]
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    how = {"file": "The benchmark file itself is in the corpus", "rows": "A copy of the benchmark is in the corpus"}
    told = f"{how[files[0]['how']]}: {files[0]['shard']}{more}."
    if not own["documents"]:
        return f"{told} Nothing else is in the corpus."
    verdicts = own["verdicts"]
    return (
        f"{told} Without it, {verdicts['contaminated']:,} of its items are contaminated and {verdicts['suspect']:,} "
        "suspect: if you do not train on it, take it out of the corpus and audit again."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.{0 if value >= 0.1 else 1}f} %" if value < 0.995 else f"{100 * value:.2f} %"


def _shards(corpus: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return corpus.get("shards") or ()
