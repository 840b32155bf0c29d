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
