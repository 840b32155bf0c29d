"""Both errors of the routing checks over simulated routers: false alarms of healthy ones, and faults missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from checks import run_checks
from checks.finding import Finding
from tests.checks.routing.kinds import (
    COLLAPSES,
    DEATHS,
    HEALTHY,
    ONSET,
    OVERLOADS,
    UNKNOWABLE,
    Kind,
    dies_while_resting,
    off_its_plan,
    rests,
)

SEEDS = range(20)
FAULTS = {
    **{name: (kind, "router.collapse", 20) for name, kind in COLLAPSES.items()},
    # Three of four windows of half the ceiling, on top of what a doubtful mix may ask for.
    **{name: (kind, "router.overload", 17) for name, kind in OVERLOADS.items()},
    **{name: (kind, "router.dead", 20) for name, kind in DEATHS.items()},
    "dies_while_resting": (dies_while_resting, "router.dead", 20),
}  # fmt: skip
"""Kind -> run, check that must alarm, and in how many of 20 seeds at least."""


def answers(kind: Kind) -> Iterator[tuple[int, list[Finding]]]:
    for seed in SEEDS:
        run = kind(seed).run()
        yield seed, list(run_checks(run, only="routing").findings)  # type: ignore[arg-type]


def alarms(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.level in ("warn", "fail")]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_router_raises_no_alarm(name: str) -> None:
    found = [f for _, of_seed in answers(HEALTHY[name]) for f in of_seed]
    told = alarms(found)
    print(f"\n{name}: {len(told)} alarms, {Counter(f.level for f in found)} in {len(SEEDS)} runs")
    assert not told, [f.summary for f in told]
    assert all((f.level == "unknown") is (name == "experts_choose") for f in found)


@pytest.mark.parametrize("name", UNKNOWABLE)
def test_where_the_record_cannot_tell_the_mix_from_the_router_nothing_fails(name: str) -> None:
    """A warning at most, and it names the mix: in its first words where that moved, else as what is not recorded."""
    told = [f for _, of_seed in answers(UNKNOWABLE[name]) for f in alarms(of_seed)]
    print(f"\n{name}: {len(told)} warnings in {len(SEEDS)} runs")
    for f in told:
        assert f.level == "warn", f.summary
        recorded = f.summary.startswith("The mix moved") and "not known" in f.summary
        assert recorded or "mix is not recorded" in f.what_it_means and "attach with domains" in f.what_to_do


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str) -> None:
    kind, check, least = FAULTS[name]
    found = [(seed, [f for f in alarms(of_seed) if f.check == check]) for seed, of_seed in answers(kind)]
    missed = [seed for seed, told in found if not told]
    levels = Counter(f.level for _, told in found for f in told)
    print(f"\n{name}: {len(SEEDS) - len(missed)} of {len(SEEDS)} by {check}, {dict(levels)}")
    assert len(SEEDS) - len(missed) >= least, missed
    assert all("explain" not in f.summary for _, told in found for f in told)


def test_experts_of_a_domain_that_is_not_fed_rest() -> None:
    told = [f for _, of_seed in answers(rests) for f in alarms(of_seed)]
    print(f"\nrests: {len(told)} alarms in {len(SEEDS)} runs")
    assert len(told) <= 1 and all(f.level == "warn" for f in told), [f.summary for f in told]


def test_off_its_plan_the_mix_is_named_first() -> None:
    told = [f for _, of_seed in answers(off_its_plan) for f in alarms(of_seed)]
    assert len(told) >= 10 and all(f.level == "warn" and f.check == "router.collapse" for f in told)
    for f in told:
        assert f.summary.startswith("Off its plan, the mix moved (code 2") and "100 %" in f.summary, f.summary
        assert f.evidence[0].signal == "data/domain_share" and f.evidence[0].label == "code"
        assert f.steps is not None and abs(f.steps[0] - ONSET) <= 8
