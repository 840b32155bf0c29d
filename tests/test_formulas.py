"""Derived signals against scipy, transformers' own schedules, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, variation

from trainvitals import formulas
from trainvitals.card import RunCard
from trainvitals.catalogue import FIELDS, SIGNALS
from trainvitals.errors import UsageError
from trainvitals.schedules import Plan

loads = st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), min_size=1, max_size=8)


@given(loads)
@settings(max_examples=50, deadline=None)
def test_router_signals_match_scipy(rows: list[list[int]]) -> None:
    tokens = np.array(rows, dtype=float)
    seen = tokens.sum(axis=1) > 0
    for formula, oracle in [
        (formulas.load_entropy, lambda t: entropy(t) / np.log(4)),
        (formulas.load_cv, variation),
        (formulas.max_violation, lambda t: t.max() / t.mean() - 1),
        (formulas.dead_experts, lambda t: (t == 0).sum()),
    ]:
        values, present = formula(tokens)
        np.testing.assert_array_equal(present, seen)
        np.testing.assert_allclose(values[seen], [oracle(row) for row in tokens[seen]], atol=1e-12)


def test_js_distance_is_scipys_less_its_bias() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(500))
    q = 0.9 * p + 0.1 * rng.dirichlet(np.ones(500))
    big = rng.multinomial(10**8, p), rng.multinomial(10**8, q)
    assert formulas.js_distance(*big) == pytest.approx(jensenshannon(*big, base=2), rel=1e-3)
    same = [formulas.js_distance(rng.multinomial(20_000, p), rng.multinomial(20_000, p)) for _ in range(50)]
    plugin = jensenshannon(rng.multinomial(20_000, p), rng.multinomial(20_000, p), base=2)
    assert np.mean(np.square(same)) < 0.1 * plugin**2, "samples of one distribution are at distance zero but for noise"


def test_drift_compares_windows_with_the_others() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(300))
    windows = np.stack([rng.multinomial(50_000, p) for _ in range(9)] + [rng.multinomial(50_000, p[::-1])])
    values, present = formulas.token_drift(windows[:, None, :])
    assert present.all() and values[:9].max() < 0.03 < 0.4 < values[9, 0]


def test_absent_is_not_nan() -> None:
    values, present = formulas.ratio(np.array([1.0, np.nan, 0.0]), np.array([2.0, 1.0, 0.0]))
    assert present is not None and present.tolist() == [True, True, False]
    assert values[0] == 0.5 and np.isnan(values[1]) and np.isnan(values[2])


def test_mfu_of_unknown_hardware_is_unknown() -> None:
    tokens, seconds = np.array([1e6]), np.array([2.0])
    card = RunCard(flops_per_token=6e9, peak_flops_per_device=989e12, world_size=8)
    assert formulas.mfu(tokens, seconds, card).values[0] == pytest.approx(5e5 * 6e9 / (8 * 989e12))
    unknown = formulas.mfu(tokens, seconds, RunCard(flops_per_token=6e9))
    assert unknown.present is not None and not unknown.present.any()


def test_epochs_count_what_was_seen() -> None:
    card = RunCard(domains={"web": 0.5, "code": 0.5}, domain_tokens={"web": 100})
    values, present = formulas.epochs(np.array([[50.0, 10, 0], [100, 10, 0]]), card)
    assert values[:, 0].tolist() == [0.5, 1.5] and present is not None and not present[:, 1:].any()


def test_every_signal_reads_one_frame_and_documents_itself() -> None:
    for signal in SIGNALS.values():
        assert len({FIELDS[name].frame for name in signal.reads}) == 1, signal.name
        assert signal.unit and signal.meaning
    assert not set(SIGNALS) & set(FIELDS) - {"router/tokens"}


def test_plans_are_transformers_schedules() -> None:
    torch = pytest.importorskip("torch")
    from transformers import get_scheduler

    def used(name: str, **kwargs: object) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25)
        scheduler = get_scheduler(name, optimizer, num_warmup_steps=10, num_training_steps=100,
                                  scheduler_specific_kwargs=kwargs or None)
        rates = []
        for _ in range(100):
            optimizer.step()
            scheduler.step()
            rates.append(scheduler.get_last_lr()[0])
        return rates

    steps = np.arange(1, 101)
    common = {"peak": 0.25, "warmup_steps": 10, "total_steps": 100}
    for name, plan, kwargs in [
        ("linear", Plan(kind="linear", **common), {}),
        ("cosine", Plan(kind="cosine", **common), {}),
        ("warmup_stable_decay", Plan(kind="wsd", decay_steps=20, **common),
         {"num_decay_steps": 20, "decay_type": "linear"}),
        ("constant_with_warmup", Plan(kind="constant", **common), {}),
    ]:
        np.testing.assert_allclose(plan.at(steps), used(name, **kwargs), atol=1e-12, err_msg=name)
        assert Plan.from_json(plan.to_json()) == plan


def test_a_table_plan_interpolates_and_bad_plans_are_refused() -> None:
    assert Plan.sampled([0, 10], [0.0, 1.0]).at([5]).tolist() == [0.5]
    for bad in ({"kind": "zigzag"}, {"kind": "table"}, {"kind": "cosine", "peak": 1.0}):
        with pytest.raises(UsageError):
            Plan(**bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Not a learning-rate plan"):
        Plan.from_json({"shape": "cosine"})
