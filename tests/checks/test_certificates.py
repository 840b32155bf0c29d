"""What the certificates say, and that no change makes the checks worse than what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.detection.certify import count_small
from benchmarks.detection.cut import Until
from checks import run_checks
from checks.certificates import Certificate, certificate_words, lower_bound, measured, upper_bound
from tests.checks.synthetic import Synthetic
from trainvitals.store import open_run


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


def test_a_run_cut_short_knows_nothing_of_its_end(tmp_path: Path) -> None:
    made = Synthetic(n=200, seed=1)
    made.loss[150:] *= 1.5
    run = made.write(tmp_path)
    assert run_checks(run, "loss.divergence").level == "fail"
    assert run.kept("streams.bin", 1 << 28)
    cut: Any = Until(run, 150)
    assert cut.kept("streams.bin", 1 << 28) == b"" and run_checks(cut, "loss").level in ("pass", "unknown")
    stored = run.kept("streams.bin", 1 << 28)
    assert stored == open_run(tmp_path).kept("streams.bin", 1 << 28)
