"""An incident keeps its id while a run grows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.finding import Finding
from checks.judge import incidents
from checks.triage.identity import Known, match


def finding(check: str, area: str, steps: tuple[int, int], onset: tuple[int, int] | None = None) -> Finding:
    return Finding(check=check, area=area, level="fail", summary=check, steps=steps, onset=onset)


def told(known: list[Known], *findings: Finding) -> list[Known]:
    return match(known, incidents(findings, 20), findings)


def test_an_id_outlives_an_earlier_first_mover_and_a_moved_onset() -> None:
    first = told([], finding("loss.spike", "loss", (412, 430), (410, 413)))
    assert [k.id for k in first] == ["learning-412"]
    later = told(first, finding("data.mix", "data", (400, 460), (398, 401)),
                 finding("loss.spike", "loss", (414, 460), (412, 415)))
    assert [k.id for k in later] == ["learning-412"]
    assert [m.check for m in later[0].members] == ["data.mix", "loss.spike"]


def test_a_spike_that_becomes_a_divergence_is_one_incident() -> None:
    first = told([], finding("loss.spike", "loss", (161, 165), (160, 162)))
    assert [k.id for k in told(first, finding("loss.divergence", "loss", (161, 400), (159, 161)))] == ["learning-161"]


def test_another_fault_gets_another_id_and_a_cause_never_takes_that_of_another() -> None:
    first = told([], finding("loss.spike", "loss", (100, 110)))
    both = told(first, finding("loss.spike", "loss", (100, 110)), finding("loss.spike", "loss", (500, 510)),
                finding("throughput.drop", "throughput", (100, 120)))
    assert sorted(k.id for k in both) == ["learning-100", "learning-500", "machine-100"]


def test_where_two_have_grown_together_the_first_told_names_them() -> None:
    apart = told([], finding("loss.spike", "loss", (100, 110)), finding("grad.explosion", "optimisation", (125, 130)))
    assert [k.id for k in apart] == ["learning-100", "learning-125"]
    between = finding("lr.jump", "optimisation", (112, 130))
    grown = told(apart, finding("loss.spike", "loss", (100, 110)), between,
                 finding("grad.explosion", "optimisation", (125, 130)))
    assert [k.id for k in grown] == ["learning-100"]


CHECKS = st.sampled_from([("loss.spike", "loss"), ("data.mix", "data"), ("throughput.drop", "throughput")])
FINDINGS = st.lists(st.builds(lambda c, at, n: finding(*c, (at, at + n)), CHECKS, st.integers(0, 500),
                              st.integers(0, 50)), max_size=8)  # fmt: skip


@given(FINDINGS, FINDINGS)
def test_ids_are_unique_and_the_same_look_changes_none(before: list[Finding], after: list[Finding]) -> None:
    first = told([], *before)
    assert told(first, *before) == first
    second = told(first, *after)
    assert len({k.id for k in second}) == len(second) == len(incidents(after, 20))
    assert [Known.from_json(json.loads(json.dumps(k.to_json()))) for k in second] == second


@pytest.mark.parametrize("raw", [None, {}, {"id": "x"}, {"id": "x", "cause": "c", "members": [1]},
                                 {"id": "", "cause": "c", "members": []},
                                 {"id": "x", "cause": "c", "members": [{"check": "a", "first": 1e400, "last": 0}]}])
def test_what_is_no_incident_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="is"):
        Known.from_json(raw)
