"""The whole report as data: what is known of each part, or why it is not and how to record it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from checks.data_report import tokens
from checks.data_report.restore import Restored, restore
from checks.data_report.sample import Sample, read
from checks.data_report.vocabulary import Vocabulary
from trainvitals.errors import UnknownSignal

if TYPE_CHECKING:
    from trainvitals.store import Run

NO_COUNTS = "The run has no token counts. Attach with vocab_size or tokenizer, and leave the `tokens` collector on."
NO_SPELLING = "The vocabulary's spellings are not recorded. Attach with tokenizer=..."
LANGUAGES = "Counts of tokens tell scripts, and not Spanish from English. Make each " \
    "language a domain, and data/domain_tokens counts it."


@dataclass(slots=True)
class DataReport:
    """Every part is None where it is not known; `unknown` then says why."""

    run: str
    step: int | None
    rests_on: dict[str, Any] = field(default_factory=dict)
    drift: tuple[tokens.Drift, ...] | None = None
    watched: tuple[tokens.Watched, ...] | None = None
    scripts: tuple[tokens.Script, ...] | None = None
    tokenizer: dict[str, Any] | None = None
    plan: Restored | None = None
    unknown: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON types; what is not finite is null."""
        return dict(_plain(asdict(self)))


def make(run: Run, words: Sequence[str] = (), over: float | None = None) -> DataReport:
    """Everything that the record tells of the data. over: tokens that are to bring the mix back to its plan."""
    made = DataReport(run.path, run.last_step)
    sample = read(run)
    if sample is None:
        made.unknown |= dict.fromkeys(("drift", "scripts", "tokenizer"), NO_COUNTS)
    else:
        _from_counts(made, sample, words)
    if words and made.watched is None:
        made.unknown["watched"] = NO_COUNTS if sample is None else NO_SPELLING
    made.unknown["languages"] = LANGUAGES
    try:
        restored = restore(run, over or _as_much_again(run))
    except UnknownSignal:
        restored = "The run has no tokens by domain. Attach with domains={name: planned share}."
    if isinstance(restored, str):
        made.unknown["plan"] = restored
    else:
        made.plan = restored
    return made


def _as_much_again(run: Run) -> float:
    """A tenth of what was fed, where nobody says how much is to come."""
    if not run.has("data/domain_tokens"):
        return 1.0
    return max(float(np.nansum(run.array("data/domain_tokens").values)) / 10, 1.0)


def _from_counts(made: DataReport, sample: Sample, words: Sequence[str]) -> None:
    vocabulary = Vocabulary(sample.tokens)
    made.rests_on = {
        "windows": sample.windows, "steps": sample.steps, "tokens": float(sample.total.sum()),
        "first": _span(sample, newest=False), "newest": _span(sample, newest=True),
    }
    if sample.newest:
        made.drift = tokens.drifts(sample, vocabulary)
    else:
        made.unknown["drift"] = "There is one window of token counts so far, and nothing to compare it with."
    if not vocabulary.known.any():
        made.unknown |= dict.fromkeys(("scripts", "tokenizer"), NO_SPELLING)
        return
    if sample.newest:
        made.watched, absent = tokens.watched(sample, vocabulary, words)
        made.unknown |= {f"watched {word}": "No token of the vocabulary holds it: the tokenizer splits it, and the "
                         "counts do not tell which pieces stand together." for word in absent}
        made.scripts = tokens.scripts(sample, vocabulary)
    else:
        made.unknown["scripts"] = "There is one window of token counts so far."
    never = sample.total.sum(axis=0) == 0
    made.tokenizer = {
        "vocabulary": len(sample.tokens),
        "spelled": int(vocabulary.known.sum()),
        "never_used": int((never & vocabulary.known).sum()),
        "domains": tokens.fits(sample, vocabulary),
    }


def _span(sample: Sample, newest: bool) -> dict[str, Any]:
    found = sample.newest if newest else sample.first
    if not found:
        return {"windows": 0, "steps": None, "tokens": 0.0}
    steps = (found[0].before + 1, found[-1].step)
    return {"windows": len(found), "steps": steps, "tokens": float(sum(w.counts.sum() for w in found))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
