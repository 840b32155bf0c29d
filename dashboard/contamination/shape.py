"""What the board needs of an audit.json, so that a file of another version is named and not a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks.contamination.records import VERDICTS
from checks.contamination.score.effect import SUBSETS
from dashboard.charts.levels import LEVELS

_MAYBE = (int, float, type(None))
_ESTIMATE = {"n": int, "value": _MAYBE, "low": _MAYBE, "high": _MAYBE}
_INTERVAL = {"value": _MAYBE, "low": _MAYBE, "high": _MAYBE}
_PROBLEM = {"source": str, "place": str, "what": str, "records": int}
_SHARD = {
    **dict.fromkeys(("shard", "kind", "sha256"), str),
    **dict.fromkeys(("bytes", "records", "documents", "skipped", "text_bytes"), int),
}
_SCORES = {
    "model": str,
    "control": bool,
    "subsets": dict.fromkeys(SUBSETS, _ESTIMATE),
    "llama2_z": {"dirty": _MAYBE},
    "gap": (dict, type(None)),
    "versus_control": (dict, type(None)),
    "p_holm": _MAYBE,
    "reading": str,
    "unscored": int,
    "unmatched": int,
}
_BENCHMARK = {
    "name": str,
    "source": str,
    "sha256": str,
    "items": int,
    "roles": dict,
    "verdicts": dict.fromkeys(VERDICTS, int),
    "eligible": int,
    "share": _INTERVAL,
    "any_hit": dict.fromkeys(("3", "5", "8", "13"), int),
    "eligible_n": dict.fromkeys(("3", "5", "8", "13"), int),
    "covered8": int,
    "scores": [_SCORES],
    "problems": [_PROBLEM],
}
_AUDIT = {
    "tool": {"name": str, "version": str},
    "searched": str,
    "seed": int,
    "corpus": {
        "sha256": str,
        **dict.fromkeys(("records", "documents", "skipped", "bytes_read", "text_bytes"), int),
        "shards": [_SHARD],
        "problems": [_PROBLEM],
    },
    "benchmarks": [_BENCHMARK],
    "thresholds": dict,
    "detectors": dict,
    "versions": dict,
    "decision": {"level": str, "sentence": str},
}
_RECALL = {
    "table": [{"edit": str, "detector": str, "planted": int, "recall": _MAYBE, "low": _MAYBE, "high": _MAYBE}],
    "false_alarms": {"items": int, "contaminated": int, "suspect": int, **_INTERVAL},
}  # fmt: skip


def misfit(audit: Mapping[str, Any]) -> str:
    """The first place where an audit.json is not as the board reads it, in words; empty where it fits."""
    found = _first(audit, _AUDIT, "")
    if found:
        return found
    if audit["decision"]["level"] not in LEVELS:
        return "decision.level is none of " + ", ".join(LEVELS)
    inject = audit.get("inject")
    if not inject:
        return ""
    shape = _RECALL if isinstance(inject, dict) and "table" in inject else {"reason": str}
    return _first(inject, shape, "inject")


def _first(value: Any, shape: Any, place: str) -> str:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{place or 'it'} is no object"
        for name, inner in shape.items():
            where = f"{place}.{name}" if place else name
            if name not in value:
                return f"{where} is missing"
            if said := _first(value[name], inner, where):
                return said
        return ""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place} is no list"
        return next((said for i, one in enumerate(value) if (said := _first(one, shape[0], f"{place}[{i}]"))), "")
    wanted = shape if isinstance(shape, tuple) else (shape,)
    # True and False are numbers to Python, not to us.
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and bool not in wanted)
    return "" if fits else f"{place} is {type(value).__name__}"
