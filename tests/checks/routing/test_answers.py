"""What the routing checks say, and that they say no more than they looked at."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks import run_checks
from checks.finding import Finding
from checks.routing._loads import loads
from tests.checks.routing import kinds
from tests.checks.routing.kinds import ONSET, shape
from tests.checks.routing.routers import DOMAINS, Recorded, Routers, only, stored
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run


def answer(run: Any, check: str = "router.collapse") -> Finding:
    (found,) = run_checks(run, only=check).findings
    return found


def test_specialisation_passes_and_names_the_mix_first() -> None:
    told = answer(kinds.tuned_on_one_domain(2).run())
    assert told.level == "pass" and told.summary.startswith("The mix moved (") and "100 %" in told.summary
    assert "of 128, " in told.summary and "Specialisation, not collapse" in told.what_it_means
    assert told.statistic is not None and told.statistic.value < 0.2


def test_a_planned_switch_is_not_off_the_plan() -> None:
    made = shape(2)
    made.mix[ONSET - 1 :] = only("code")
    assert answer(made.run()).level == "warn"
    made.events = [("stage_switch", ONSET, {"domains": {"code": 1.0}})]
    assert answer(made.run()).level == "pass"


def test_a_collapse_says_what_the_mix_has_to_do_with_it() -> None:
    told = answer(kinds.collapses(2).run())
    assert told.level == "fail" and "is collapsing since step" in told.summary
    assert "The mix of domains stayed as it was, and does not explain it." in told.what_it_means
    told = answer(kinds.collapses_as_the_mix_moves(2).run())
    assert told.level == "fail" and "The mix moved at the same time (math 1" in told.what_it_means


def test_what_is_not_recorded_is_said_in_a_pass_too() -> None:
    told = answer(shape(2, logs=frozenset({"top k"})).run())
    assert told.level == "pass" and "The domain mix is not recorded" in told.what_it_means
    alone = shape(2, plan={"code": 1.0})
    alone.mix[:] = only("code")
    told = answer(alone.run())
    assert told.level == "pass" and "knows one domain only" in told.what_it_means


def test_loads_that_are_equal_by_construction_say_nothing() -> None:
    for check in ("router.collapse", "router.overload", "router.dead"):
        told = answer(kinds.experts_choose(1).run(), check)
        assert told.level == "unknown" and "equal by construction" in told.summary
    made = shape(1, layers=2)
    tokens, routed = made.counts
    routed[:, :, 1] = 40
    told = answer(made.run())
    assert told.level == "pass" and "1 of 2 layers" in told.summary


def test_why_a_router_is_not_recorded_is_in_the_answer(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait", flush_seconds=60)
    writer.write_card(RunCard(experts=8))
    frame = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step in range(1, 30):
        frame.append(step, {"loss/sum": 1.0, "loss/tokens": 1})
    writer.event("router_not_by_token", step=1, message="Experts choose their tokens there.")
    writer.close()
    told = answer(open_run(tmp_path))
    assert told.level == "unknown" and "Experts choose their tokens there." in told.what_it_means


def test_shared_experts_are_left_out() -> None:
    found = loads(kinds.shared_experts(1).run())  # type: ignore[arg-type]
    assert found is not None and found.shared == ("64", "65") and len(found.experts) == 64
    collapsed = loads(kinds.collapses(0).run())  # type: ignore[arg-type]
    assert collapsed is not None and not collapsed.shared


def test_experts_per_token_come_from_the_card_else_the_record_else_the_answer_depends_on_them() -> None:
    unsaid = frozenset({"mix", "by domain"})
    found = loads(shape(1, logs=unsaid).run())  # type: ignore[arg-type]
    assert found is not None and (found.top_k, found.top_k_known) == (8, "record")
    made = Routers(experts=8, top_k=4, layers=1, logs=frozenset())
    told = answer(made.run())
    assert told.level == "pass" and "Experts per token are not recorded" in told.what_it_means
    made = Routers(experts=8, top_k=4, layers=1, logs=frozenset())
    made.becomes(made.few(4), 1)
    told = answer(made.run())
    assert told.level == "unknown" and "if it is 2 or more, a router may have collapsed" in told.summary


def test_what_rests_is_counted_and_dead_once_its_domain_is_back() -> None:
    told = answer(kinds.rests(2).run(265), "router.dead")
    assert told.level == "pass" and told.summary.startswith("16 experts rest")
    told = answer(kinds.dies_while_resting(2).run(), "router.dead")
    assert told.level == "fail" and told.steps is not None and 240 < told.steps[0] <= 290


@pytest.mark.parametrize("name", ["collapses_as_the_mix_moves", "tuned_on_one_domain", "planned_switch"])
def test_the_store_says_the_same(name: str, tmp_path: Path) -> None:
    recorded = getattr(kinds, name)(0).run()
    through = run_checks(stored(recorded, tmp_path), only="routing").findings
    assert [f.to_json() for f in through] == [f.to_json() for f in run_checks(recorded, only="routing").findings]


@cache
def _hostile() -> dict[str, Recorded]:
    rng = np.random.default_rng(0)
    made = {name: shape(0, layers=2, n=80).run() for name in (
        "silent layer", "silent rows", "not finite", "negative", "no domain ever", "other layers", "other domains",
        "many domains", "more per token than experts", "one expert", "huge", "no noise")}  # fmt: skip

    def change(name: str, signal: str, values: np.ndarray | None = None, labels: Any = None) -> None:
        steps, old, axes = made[name].found[signal]
        made[name].found[signal] = (steps, old if values is None else values, labels or axes)

    tokens, by_domain, mix = (made["huge"].found[f"{n}"][1] for n in (
        "router/tokens", "router/domain_tokens", "data/domain_tokens"))  # fmt: skip
    change("silent layer", "router/tokens", tokens * np.array([1, 0])[:, None])
    change("silent rows", "router/tokens", tokens * (np.arange(80) < 50)[:, None, None])
    change("not finite", "router/tokens", np.where(rng.random(tokens.shape) < 0.1, np.nan, tokens))
    change("negative", "router/tokens", -tokens)
    change("no domain ever", "data/domain_tokens", 0 * mix)
    change("other layers", "router/domain_tokens", labels=((*DOMAINS, "x"), ("a", "b"), tuple("01234567")))
    change("other domains", "router/domain_tokens", labels=(tuple("abcdef"), *made["huge"].found["router/tokens"][2]))
    change("many domains", "data/domain_tokens", np.tile(mix, (1, 40)), (tuple(f"d{i}" for i in range(240)),))
    made["more per token than experts"].card = RunCard(top_k=99)
    change("one expert", "router/tokens", tokens[:, :, :1], (("layers.0", "layers.1"), ("0",)))
    change("huge", "router/tokens", tokens * 1e300)
    change("no noise", "router/tokens", 0 * tokens + 100 * np.arange(1, 9))
    change("no noise", "data/domain_tokens", 0 * mix + 100)
    return made


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(_hostile()))
def test_no_record_breaks_a_check(name: str) -> None:
    for told in run_checks(_hostile()[name], only="routing").findings:  # type: ignore[arg-type]
        assert "check failed" not in told.summary, told.summary
