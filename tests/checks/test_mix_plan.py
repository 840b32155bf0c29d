"""The whole mix is held against the whole plan: what the plan does not expect counts too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from checks.finding import Finding
from checks.judge import run_checks
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run

NAMES = ["web", "code", "math"]


def judged(where: Path, plan: Mapping[str, float | None], fed: list[float], seed: int = 0) -> Finding:
    """data.mix on 400 steps of 256 documents of 100 tokens drawn at the shares `fed`."""
    rng = np.random.default_rng(seed)
    writer = RunWriter(where, when_full="wait")
    writer.write_card(RunCard(domains=dict(plan)))
    data = writer.frame("data", ["data/domain_tokens"], {"domain": [*NAMES, "unattributed"]})
    for step in range(1, 401):
        data.append(step, {"data/domain_tokens": [*(100 * rng.multinomial(256, fed)).tolist(), 0]})
    writer.close()
    (finding,) = run_checks(open_run(where), only=["data.mix"]).findings
    return finding


PLANS: list[dict[str, float | None]] = [
    {"web": 0.6, "code": 0.4, "math": 0.0},
    {"web": 0.6, "code": 0.4, "math": None},
    {"web": 0.6, "code": 0.4},
]


@pytest.mark.parametrize("plan", PLANS, ids=["at 0", "without a share", "not in the plan"])
def test_half_the_tokens_from_a_domain_that_is_not_expected(tmp_path: Path, plan: dict[str, float | None]) -> None:
    finding = judged(tmp_path / "off", plan, [0.3, 0.2, 0.5])
    assert finding.level == "fail" and "math 50" in finding.summary, finding.summary
    assert judged(tmp_path / "sound", plan, [0.6, 0.4, 0.0]).level == "pass"


def test_a_domain_without_a_share_has_what_the_others_leave(tmp_path: Path) -> None:
    plan = {"web": 0.5, "code": 0.3, "math": None}
    assert judged(tmp_path / "sound", plan, [0.5, 0.3, 0.2]).level == "pass"
    assert judged(tmp_path / "off", plan, [0.4, 0.24, 0.36]).level == "fail"


def test_weights_beside_a_domain_without_one_are_no_plan(tmp_path: Path) -> None:
    assert judged(tmp_path, {"web": 6.0, "code": 4.0, "math": None}, [0.3, 0.2, 0.5]).level == "unknown"


def test_errors_over_seeds(tmp_path: Path) -> None:
    """A sound mix of 20 seeds cries no alarm; 8 % from a domain outside the plan is found in all of them."""
    plan = {"web": 0.6, "code": 0.4}
    sound = [judged(tmp_path / f"sound{i}", plan, [0.6, 0.4, 0.0], i).level for i in range(20)]
    off = [judged(tmp_path / f"off{i}", plan, [0.55, 0.37, 0.08], i).level for i in range(20)]
    print(f"false alarms {20 - sound.count('pass')} of 20, missed {20 - off.count('fail')} of 20")
    assert sound.count("pass") == 20 and off.count("fail") == 20


def fed_without_plan(where: Path, stages: list[tuple[int, list[float]]], plan: Mapping[str, float | None],
                     switch: int | None = None, seed: int = 0, documents: int = 256) -> list[Finding]:
    """data.mix on stages of (rows, shares fed); a switch without shares after a step."""
    rng = np.random.default_rng(seed)
    writer = RunWriter(where, when_full="wait")
    writer.write_card(RunCard(domains=dict(plan)))
    data = writer.frame("data", ["data/domain_tokens"], {"domain": [*NAMES, "unattributed"]})
    step = 0
    for rows, shares in stages:
        for _ in range(rows):
            step += 1
            data.append(step, {"data/domain_tokens": [*(100 * rng.multinomial(documents, shares)).tolist(), 0]})
    if switch is not None:
        writer.event("stage_switch", step=switch)
    writer.close()
    return list(run_checks(open_run(where), only=["data.mix"]).findings)


OPEN: dict[str, float | None] = dict.fromkeys(NAMES)


def test_a_mix_without_plan_is_held_against_its_first_rows(tmp_path: Path) -> None:
    (steady,) = fed_without_plan(tmp_path / "steady", [(400, [0.5, 0.3, 0.2])], OPEN)
    assert steady.level == "pass" and "No shares are planned" in steady.summary, steady.summary
    (moved,) = fed_without_plan(tmp_path / "moved", [(250, [0.5, 0.3, 0.2]), (150, [0.35, 0.3, 0.35])], OPEN)
    assert moved.level == "warn" and moved.steps is not None and abs(moved.steps[0] - 251) <= 2, moved.summary
    (short,) = fed_without_plan(tmp_path / "short", [(20, [0.5, 0.3, 0.2])], OPEN)
    assert short.level == "unknown"
    (few,) = fed_without_plan(tmp_path / "few", [(150, [0.5, 0.3, 0.2])], OPEN, documents=2)
    assert few.level == "unknown"


def test_a_stage_without_shares_is_judged_by_itself(tmp_path: Path) -> None:
    plan: dict[str, float | None] = {"web": 0.5, "code": 0.3, "math": 0.2}
    first, second, third = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.5, 0.1, 0.4]
    (steady,) = fed_without_plan(tmp_path / "steady", [(200, first), (300, second)], plan, switch=200)
    assert steady.level == "pass" and "since step 201" in steady.summary, steady.summary
    (moved,) = fed_without_plan(tmp_path / "moved", [(200, first), (200, second), (200, third)], plan, switch=200)
    assert moved.level == "warn" and moved.steps is not None and abs(moved.steps[0] - 401) <= 2, moved.summary
    found = fed_without_plan(tmp_path / "begun", [(200, first), (20, second)], plan, switch=200)
    assert sorted(f.level for f in found) == ["pass", "unknown"]


def test_errors_without_a_plan_over_seeds(tmp_path: Path) -> None:
    sound = [f.level for i in range(30) for f in
             fed_without_plan(tmp_path / f"sound{i}", [(400, [0.5, 0.3, 0.2])], OPEN, seed=i, documents=64)]
    off = [f.level for i in range(10) for f in
           fed_without_plan(tmp_path / f"off{i}", [(250, [0.5, 0.3, 0.2]), (150, [0.4, 0.3, 0.3])], OPEN, seed=i)]
    print(f"false alarms {30 - sound.count('pass')} of 30, missed {10 - off.count('warn')} of 10")
    assert sound.count("pass") == 30 and off.count("warn") == 10
