"""What the mix explains, against closed forms and brute force; and that no window looks ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checks import run_checks
from checks.routing import _mix
from checks.routing._domains import mix_of
from checks.routing._loads import Loads, effective_number, loads
from checks.routing._mix import Learner, explain
from tests.checks.routing import kinds
from tests.checks.routing.kinds import ONSET, shape
from tests.checks.routing.routers import DOMAINS, Recorded, Routers, only


def ridge(found: Loads, shares: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """P [D, E] that minimises |y - s P|^2 + tr (P - 1/E)' prior (P - 1/E), of one layer."""
    load = found.tokens[:, 0] / found.tokens[:, 0].sum(axis=-1, keepdims=True)
    fair = 1 / load.shape[1]
    gram = shares.T @ shares + prior
    solved: np.ndarray = fair + np.linalg.solve(gram, shares.T @ (load - fair))
    return solved


def test_the_recursion_is_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mix, "HALF_LIFE", np.inf)
    monkeypatch.setattr(_mix, "FAR", 2.0)
    monkeypatch.setattr(Learner, "_variety", lambda self: np.full(len(self.count), 40.0))
    run: Any = Routers(seed=3, experts=16, top_k=2, layers=1, n=120).run()
    found = loads(run)
    assert found is not None
    mix = mix_of(run, found)
    assert mix is not None
    learner = Learner(found, mix)
    for w in range(len(found.first)):
        learner.window(w)
    last = len(found.first) - 1
    told = ridge(found, mix.shares, learner.prior / 40.0)
    assert np.allclose(learner.asks[0], told)
    before = ridge(_upto(found, last), mix.shares[:last], learner.prior / 40.0)
    expected = np.maximum(mix.shares[last] @ before, 0)
    assert np.allclose(learner.explained.expected[last, 0], 16 * expected / expected.sum(), atol=1e-5)


def _upto(found: Loads, windows: int) -> Loads:
    return Loads(found.first[:windows], found.last[:windows], found.tokens[:windows], found.layers, found.experts,
                 found.top_k, found.rows_per_window)  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_what_a_domain_asks_for_is_known_before_it_is_fed_alone(seed: int) -> None:
    """The simulator knows the truth. Even seeds count loads by domain, odd ones only the mix."""
    made = shape(seed, layers=1)
    made.mix[ONSET - 1 :] = only("code")
    run: Any = made.run()
    found, explained = loads(run), explain(run).explained
    assert found is not None and explained is not None
    w = int(np.searchsorted(found.first, ONSET))
    truth = made.asks[0, 0, DOMAINS.index("code")] * made.experts
    error = np.sqrt(np.mean((explained.expected[w, 0] - truth) ** 2)) / truth.std()
    assert error < (0.25 if seed % 2 == 0 else 0.6)
    alone, usual = effective_number(truth / truth.sum()), found.effective_experts[: w - 1, 0].mean()
    concentrated = (usual - alone) / (made.experts - made.top_k)
    assert explained.concentrated[w, 0] == pytest.approx(concentrated, abs=0.05 if seed % 2 == 0 else 0.15)


def test_degrees_are_those_of_the_experts_that_the_mix_leaves() -> None:
    """The same k of E experts is 1, what the mix asks for 0, whatever it asks for; and half way is half way."""
    found = loads(shape(0).run())  # type: ignore[arg-type]
    explained = explain(shape(0).run()).explained  # type: ignore[arg-type]
    assert found is not None and explained is not None
    explained.concentrated[:] = 0.4
    one = np.ones_like(explained.concentrated)
    assert np.allclose(explained.beyond(one), 1)
    assert np.allclose(explained.beyond(0.4 * one), 0)
    assert np.allclose(explained.beyond(0.7 * one), 0.5)


CUT = ("steady", "tuned_on_one_domain", "domains_come_and_go", "collapses_on_one_domain", "dies_slowly", "oscillates",
       "one_domain_unrecorded", "few_documents", "rests", "dies_while_resting")  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_cut_anywhere_windows_and_what_is_expected_of_them_are_the_same(name: str) -> None:
    """Byte for byte. And what was an alarm stays one, as bad at least, with its onset once four windows are over."""
    made: Routers = getattr(kinds, name)(sum(map(ord, name)) % 6)
    whole = _told(made.run())
    rng = np.random.default_rng(1)
    seen: dict[tuple[str, str], int] = {}
    for cut in sorted(rng.integers(60, made.n, 8).tolist()):
        run = made.run(int(cut))
        if loads(run) is None:  # type: ignore[arg-type]
            continue
        tables = _told(run)
        assert tables.keys() <= whole.keys()
        for key, table in tables.items():
            assert np.array_equal(table, whole[key][: len(table)], equal_nan=True), key
        width = int(whole["last"][0] - whole["first"][0] + 1)
        for f in run_checks(run, only="routing").findings:  # type: ignore[arg-type]
            before = seen.get((f.check, "alarm"))
            if before is not None:
                assert f.level in ("warn", "fail"), (cut, f.summary)
                assert f.steps is not None and abs(f.steps[0] - before) <= 4 * width, (before, f.steps)
            if f.level in ("warn", "fail") and f.steps is not None:
                seen.setdefault((f.check, "alarm"), f.steps[0])


def _told(run: Recorded) -> dict[str, np.ndarray]:
    found, explained = loads(run), explain(run).explained  # type: ignore[arg-type]
    assert found is not None
    tables = {"first": found.first, "last": found.last, "tokens": found.tokens}
    if explained is not None:
        names = ("expected", "doubt", "at_usual", "concentrated", "unseen")
        tables |= {name: getattr(explained, name) for name in names}
    return tables


def test_a_window_holds_enough_tokens_and_a_long_run_few_windows() -> None:
    made = Routers(experts=64, top_k=1, layers=1, n=2500, documents=1, length=64, logs=frozenset({"top k"}))
    found = loads(made.run())  # type: ignore[arg-type]
    assert found is not None
    assert (found.tokens.sum(axis=-1) >= 200 * 64).all()
    many = Routers(experts=8, top_k=2, layers=1, n=9000, documents=16, length=128, logs=frozenset({"top k"}))
    found = loads(many.run())  # type: ignore[arg-type]
    assert found is not None
    rows = found.last - found.first + 1
    assert rows[0] == 4 and set(rows.tolist()) == {4, 8, 16} and len(rows) < 1400
    assert found.tokens.sum() == many.counts[1][: int(found.last[-1])].sum()
