"""What the certificates say, and that no change makes the checks worse than what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.detection.certify import count_small
from checks.certificates import Certificate, certificate_words, lower_bound, measured, upper_bound


@given(st.integers(1, 10_000), st.data())
def test_bounds_are_those_of_clopper_and_pearson(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    exact = binomtest(count, n).proportion_ci(0.90, "exact")
    assert upper_bound(count, n) == pytest.approx(exact.high, abs=1e-12)
    assert lower_bound(count, n) == pytest.approx(exact.low, abs=1e-12)


def test_the_rule_of_three() -> None:
    assert upper_bound(0, 38_512) * 1e5 == pytest.approx(7.8, abs=0.05)


def test_what_was_not_measured_is_never_a_number() -> None:
    assert Certificate().words == "not measured."
    assert Certificate(steps=100, runs=1).words.endswith("; recall not measured.")
    assert Certificate(of=3).words == "false alarms not measured; 0 of 3 planted and real faults found."
    assert certificate_words("no.such.check") == "not measured."


def test_no_check_is_worse_than_its_certificate() -> None:
    """After a change for the better: `python -m benchmarks.detection certify --only-small`."""
    promised = {name: Certificate(**raw) for name, raw in measured()["small"].items()}
    found, worse = count_small(), []
    for name, was in promised.items():
        now = found.get(name, Certificate())
        for what, bad in (
            ("false fail", now.fail > was.fail), ("false warn", now.warn > was.warn), ("found", now.found < was.found),
            ("answered", now.steps < was.steps), ("delay", (now.delay or 0) > (was.delay or 0)),
        ):  # fmt: skip
            if bad:
                worse.append(f"{name}, {what}: {was} -> {now}")
    assert not worse, "\n".join(worse)
