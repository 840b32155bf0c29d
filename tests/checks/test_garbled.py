"""Bytes per token and tokens without a spelling, both ways, on windows of text that clumps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from checks.finding import Finding
from checks.judge import run_checks
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run

TOKENS = ["0", *(f"{i} {'x' * (1 + i % 7)}" for i in range(1, 60))]
SIZES = np.array([0, *(1 + i % 7 for i in range(1, 60))], float)


def judged(where: Path, shares: list[np.ndarray], seed: int = 0, size: int = 4_000, switch: int | None = None,
           spelled: bool = True) -> list[Finding]:
    rng = np.random.default_rng(seed)
    writer = RunWriter(where, when_full="wait")
    writer.write_card(RunCard(domains={"web": 1.0}))
    if switch is not None:
        writer.event("stage_switch", step=switch)
    fields = ["tokens/counts", *(["tokens/bytes", "tokens/seen"] if spelled else [])]
    frame = writer.frame("tokens", fields, {"domain": ["web", "unattributed"],
                                            "token": TOKENS if spelled else [str(i) for i in range(60)]})
    for row, p in enumerate(shares, 1):
        # Documents: a tenth of the tokens are those of 20 texts that use five tokens each.
        counts = rng.multinomial(size, p)
        for _ in range(20):
            counts[rng.integers(1, 60, 5)] += size // 1000
        none = np.zeros(60, int)
        values = {"tokens/counts": [counts, none], "tokens/bytes": [counts @ SIZES, 0],
                  "tokens/seen": [counts.sum(), 0]}
        frame.append(10 * row, {name: values[name] for name in fields})
    writer.close()
    return list(run_checks(open_run(where), only=["data.garbled"]).findings)


def usual(special: float = 0.01, long: float = 1.0) -> np.ndarray:
    p = np.random.default_rng(1).dirichlet(np.ones(60)) * long ** SIZES
    p[0] = 0
    return np.concatenate([[special], (1 - special) * p[1:] / p.sum()])


def levels(found: list[Finding]) -> dict[str, str]:
    return {("bytes" if "bytes" in f.summary else "special"): f.level for f in found}


FAULTS = {
    "shorter pieces": (usual(long=0.75), {"bytes": "warn", "special": "pass"}),
    "longer pieces": (usual(long=1.6), {"bytes": "warn", "special": "pass"}),
    "unknown tokens": (usual(special=0.08), {"bytes": "pass", "special": "fail"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str, tmp_path: Path) -> None:
    after, expected = FAULTS[name]
    found = judged(tmp_path, [usual()] * 8 + [after] * 6)
    assert levels(found) == expected, [f.summary for f in found]
    alarm = next(f for f in found if f.level in ("warn", "fail"))
    assert alarm.steps == (81, 140) and alarm.ongoing
    planned = judged(tmp_path / "planned", [usual()] * 8 + [after] * 8, switch=80)
    assert set(levels(planned).values()) == {"pass"}


def test_lost_separators_are_seen_too(tmp_path: Path) -> None:
    found = judged(tmp_path, [usual(special=0.06)] * 8 + [usual(special=0.0)] * 6)
    assert levels(found)["special"] in ("warn", "fail")


def test_healthy_windows_over_seeds_and_sizes(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for seed in range(12):
        size = (300, 4_000, 100_000)[seed % 3]
        seen.update(f.level for f in judged(tmp_path / str(seed), [usual()] * 30, seed, size))
    print(dict(seen))
    assert not seen["warn"] and not seen["fail"] and seen["pass"] >= 16


def test_too_few_windows_or_no_spelling_is_unknown(tmp_path: Path) -> None:
    assert set(levels(judged(tmp_path / "few", [usual()] * 5)).values()) == {"unknown"}
    assert set(levels(judged(tmp_path / "bare", [usual()] * 12, spelled=False)).values()) == {"unknown"}
