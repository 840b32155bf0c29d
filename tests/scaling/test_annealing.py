"""The laws of a loss curve against closed forms, a plain loop, and the figures that their authors published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.scaling._curve_law import _nonnegative, fit
from checks.scaling.annealing import ANNEALING, PROGRESS_POWER, sums
from checks.scaling.forecast import forecast
from checks.scaling.multi_power import MULTI_POWER, C, published_loss, reductions
from checks.scaling.step_law import STEP_POWER
from tests.scaling.curves import FITTED, OTHERS, TRUTH, plan, public, simulated, truth


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(1, 50))
def test_sums_are_those_of_the_definition(rates: list[float], tau: float) -> None:
    keep, momentum, before = np.exp(-1 / tau), 0.0, 0.0
    s1 = s2 = 0.0
    expected = []
    for rate in rates:
        momentum = keep * momentum + (before - rate)
        before, s1, s2 = rate, s1 + rate**PROGRESS_POWER, s2 + momentum
        expected.append((s1, s2))
    got = np.stack(sums(np.array(rates), tau), axis=1)
    assert np.allclose(got, expected)


def test_multi_power_reductions_are_those_of_the_definition() -> None:
    rates = plan("wsd", 400, warmup_steps=40, decay_steps=80)
    c, beta, gamma = 2.0, 0.6, 0.65
    padded = np.concatenate([[0.0], rates])
    expected = sum(
        (padded[k - 1] - padded[k]) * (1 - (1 + c * padded[k] ** -gamma * padded[k : 391].sum()) ** -beta)
        for k in range(1, 391)
        if padded[k] != padded[k - 1]
    )
    s1, reduced = reductions(rates, np.array([390]), c, beta, gamma)
    assert s1[0] == pytest.approx(rates[:390].sum()) and reduced[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("size", "published"), [(25, 0.00376), (100, 0.00435)])
def test_published_multi_power_parameters_reproduce_their_error(size: int, published: float) -> None:
    """README of the source: mean absolute error over the whole test curves."""
    errors = []
    for name in OTHERS:
        curve = public(size, name)
        errors.append(np.abs(published_loss(f"{size}M", curve.rates, curve.steps) - curve.losses).mean())
    print(f"\n{size}M: mean absolute error {np.mean(errors):.5f}, published {published}")
    assert np.mean(errors) == pytest.approx(published, abs=2e-4)


def test_a_known_law_is_found_again() -> None:
    rates = [plan("cosine", 12000), plan("constant", 12000), plan("wsd", 12000, decay_steps=2000)]
    found = fit(ANNEALING, [simulated(r, seed=i).after(600) for i, r in enumerate(rates)])
    for name, value in (("alpha", TRUTH["alpha"]), ("tau_steps", TRUTH["tau"]), ("C", TRUTH["C"]), ("A", TRUTH["A"])):
        assert found.parameters[name] == pytest.approx(value, rel=0.1), name
    other = plan("linear", 20000)
    end = np.array([20000])
    assert found.predict(other, end)[0] == pytest.approx(truth(other, end)[0], abs=0.002)


def test_laws_share_every_parameter_and_keep_signs() -> None:
    curves = [public(25, name).after(2200) for name in FITTED]
    for law in (ANNEALING, MULTI_POWER, STEP_POWER):
        found = fit(law, curves)
        assert (found.coefficients >= 0).all() and len(found.residuals) == 3
        assert set(found.parameters) == {s.name for s in law.shapes} | set(law.linear)
    assert pytest.approx(2.07, abs=0.01) == C
    assert _nonnegative(np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]), np.array([3.0, 2.0, 1.0]))[1] == 0


@pytest.mark.parametrize("size", [25, 100])
def test_other_schedules_are_forecast_from_three_curves(size: int) -> None:
    """Fitted on cosine_24000, constant_24000 and wsdcon_9: final losses of the six other schedules."""
    known = [public(size, name) for name in FITTED]
    plain = fit(STEP_POWER, [c.after(2200) for c in known])
    errors: dict[str, list[float]] = {"annealing": [], "step_power": []}
    held = 0
    for name in OTHERS:
        target = public(size, name)
        told = forecast(known[0], target.rates, known[1:])
        assert told.final_loss is not None and told.interval is not None, told.reason
        errors["annealing"].append(told.final_loss - target.losses[-1])
        errors["step_power"].append(plain.predict(target.rates, target.steps)[-1] - target.losses[-1])
        held += told.interval[0] <= target.losses[-1] <= told.interval[1]
    means = {law: float(np.mean(np.abs(e))) for law, e in errors.items()}
    print(f"\n{size}M: mean absolute error of the final loss {means}, {held} of 6 in the band")
    assert means["annealing"] <= 0.009 and held >= 5
    # The step power law, which knows no learning rate, is off by .028 to .031 on these.
    assert 0.02 < means["step_power"] < 0.04
