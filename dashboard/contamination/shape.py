"""What the board needs of an audit.json, so that a file of another version is named and not a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks.contamination.records import VERDICTS
from checks.contamination.score.effect import SUBSETS
from dashboard.charts.levels import LEVELS
from trainvitals import untrusted

_MAYBE = (int, float, type(None))
_ESTIMATE = {"n": int, "value": _MAYBE, "low": _MAYBE, "high": _MAYBE}
_INTERVAL = {"value": _MAYBE, "low": _MAYBE, "high": _MAYBE}
_GAP = {"value": (int, float), "low": (int, float), "high": (int, float)}
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
    "gap": (_GAP, type(None)),
    "versus_control": (_GAP, type(None)),
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
    if found := untrusted.misfit(audit, _AUDIT):
        return found
    if audit["decision"]["level"] not in LEVELS:
        return "decision.level is none of " + ", ".join(LEVELS)
    inject = audit.get("inject")
    if not inject:
        return ""
    shape = _RECALL if isinstance(inject, dict) and "table" in inject else {"reason": str}
    return untrusted.misfit(inject, shape, "inject")
