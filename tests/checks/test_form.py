"""What every check keeps to, whatever the run: an answer, a sourced threshold, strict JSON, no exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from checks import AREAS, Check, Evidence, Finding, Masked, Statistic, Threshold, all_checks, check, run_checks
from checks.judge import incidents
from checks.registry import _CHECKS, remedy
from tests.checks.synthetic import Synthetic
from trainvitals.card import RunCard
from trainvitals.catalogue import SIGNALS
from trainvitals.errors import UsageError
from trainvitals.store import Run, RunWriter, open_run


def _empty(path: Path) -> Run:
    with_card = RunWriter(path)
    with_card.write_card(RunCard(name="empty"))
    with_card.close()
    return open_run(path)


def _three_steps(path: Path) -> Run:
    return Synthetic(n=3, warmup=1).write(path)


def _all_nan(path: Path) -> Run:
    s = Synthetic(n=120)
    for values in (s.loss, s.grad, s.lr, s.step_time, s.data_wait):
        values[:] = np.nan
    return s.write(path)


def _no_plan(path: Path) -> Run:
    s = Synthetic(n=120)
    s.write(path)
    (path / "run.json").unlink()
    return open_run(path)


def _constant(path: Path) -> Run:
    s = Synthetic(n=120)
    s.loss[:], s.grad[:], s.lr[:], s.step_time[:], s.data_wait[:] = 0.0, 0.0, 0.0, 0.0, 0.0
    return s.write(path)


def _jagged(path: Path) -> Run:
    s = Synthetic(n=120, ranks=2)
    s.loss[40:60], s.loss[70], s.grad[50:], s.lr[30] = np.nan, np.inf, np.inf, -1.0
    s.rank_slow[:, 1] = 1e9
    s.events += [("stage_switch", 20), ("stage_switch", 20), ("rollback", 119), ("batch_size", 0), ("eval", 10**9)]
    return s.write(path)


@pytest.fixture(scope="module", params=[_empty, _three_steps, _all_nan, _no_plan, _constant, _jagged])
def odd_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return request.param(tmp_path_factory.mktemp("odd"))


@pytest.mark.parametrize("one", all_checks(), ids=lambda c: c.name)
def test_every_check_answers_on_odd_runs(one: Check, odd_run: Run) -> None:
    for finding in one.run(odd_run):
        assert finding.check == one.name and finding.area == one.area
        assert "check failed" not in finding.summary, finding.details
        assert finding.summary.endswith(".") and finding.what_it_means and finding.what_to_do
        assert finding.steps is None or finding.steps[0] <= finding.steps[1]
        if finding.level in ("warn", "fail"):
            assert finding.statistic is not None and finding.threshold is not None and finding.threshold.source
            assert finding.ongoing or finding.steps is not None
        text = json.dumps(finding.to_json(), allow_nan=False)
        assert Finding.from_json(json.loads(text)).to_json() == finding.to_json()


def test_checks_are_described() -> None:
    assert len(all_checks()) >= 16
    for one in all_checks():
        assert one.area in AREAS and one.meaning.endswith(".")
        assert all(name in SIGNALS or "/" in name for name in (*one.reads, *one.uses))
        text = " ".join((one.function.__doc__ or "").split())
        assert "Why it matters: " in text and "How to read it: " in text


def test_missing_signals_are_unknown_with_a_remedy(tmp_path: Path) -> None:
    report = run_checks(_empty(tmp_path))
    assert {f.level for f in report.findings} == {"unknown"} and report.level == "unknown"
    dead = next(f for f in report.findings if f.check == "router.dead")
    assert dead.details["missing"] == ["router/tokens"] and dead.what_to_do == remedy("router/tokens")
    assert "router collector" in dead.what_to_do


@pytest.mark.parametrize(
    ("signal", "label", "words"),
    [
        ("router/load", "1.3", "expert 3 of layer 1"),
        ("router/load", "encoder.block.2.7", "expert 7 of layer encoder.block.2"),
        ("router/entropy", "1", "layer 1"),
        ("data/domain_share", "web", "domain web"),
        ("lr/used", "decay", "group decay"),
        ("loss/train", None, ""),
        ("own/metric", "x", "x"),
    ],
)
def test_a_label_in_words(signal: str, label: str | None, words: str) -> None:
    assert Evidence(signal, None, label).place == words


def test_finding_survives_json_with_infinities() -> None:
    full = Finding(
        check="a.b", area="loss", level="fail", summary="It is so.", steps=(3, 9), ongoing=True, n=4,
        statistic=Statistic("x", float("inf"), "1", float("-inf"), 2.0),
        threshold=Threshold(1.0, None, "1", "convention"),
        evidence=(Evidence("loss/train", (3, 9), "NaN"), Evidence("grad/norm")), what_it_means="m", what_to_do="d",
        masked=(Masked("resume", 3, 5),), details={"a": [1, None, "NaN"], "b": {"c": True}},
    )  # fmt: skip
    assert Finding.from_json(json.loads(json.dumps(full.to_json(), allow_nan=False))) == full
    odd = replace(full, details={"a": np.float32("nan"), "b": np.arange(2), 3: {1, 2}, "p": Path("x")})
    assert odd.to_json()["details"] == {"a": "NaN", "b": [0, 1], "3": [1, 2], "p": "x"}


def test_the_returned_loss_stands_in_for_the_loss_per_token(tmp_path: Path) -> None:
    losses = 2.0 + 0.01 * np.random.default_rng(0).standard_normal(200)
    losses[150:153] *= 3
    writer = RunWriter(tmp_path)
    frame = writer.frame("loss", ["loss/returned_sum", "loss/forwards"])
    for step, value in enumerate(losses, 1):
        frame.append(step, {"loss/returned_sum": value, "loss/forwards": 1})
    writer.close()
    found = {f.check: f for f in run_checks(open_run(tmp_path), ["loss"]).findings}
    spike = found["loss.spike"]
    # Three rows at three times the loss: beyond x1.5 two rows are enough.
    assert spike.level == "fail" and spike.steps is not None and spike.steps[0] == 151
    assert "as the model returned it" in spike.summary and spike.evidence[0].signal == "loss/returned"
    assert found["loss.nonfinite"].level == "pass" and "as the model returned it" in found["loss.nonfinite"].summary
    assert found["loss.divergence"].level == "pass"


def test_values_that_were_kept_out_of_every_update_destroyed_nothing(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    loss, skipped = writer.frame("loss", ["loss/sum", "loss/tokens"]), writer.frame("skipped", ["skipped/nonfinite"])
    for step in range(1, 101):
        loss.append(step, {"loss/sum": 2.0, "loss/tokens": 1})
        if step in (40, 41):
            skipped.append(step, {"skipped/nonfinite": 3})
    writer.close()
    (found,) = [f for f in run_checks(open_run(tmp_path), ["loss.nonfinite"]).findings]
    assert found.level == "warn" and found.steps == (40, 41) and "No optimizer used" in found.what_it_means


def test_a_check_that_raises_is_unknown(tmp_path: Path) -> None:
    @check("test.broken", area="loss")
    def broken(run: Run, *, limit: float = 1.0) -> Iterator[Finding]:
        """Breaks."""
        raise RuntimeError("no such layer")
        yield

    try:
        run = _empty(tmp_path)
        (finding,) = _CHECKS["test.broken"].run(run)
        assert finding.level == "unknown" and "RuntimeError: no such layer" in finding.summary
        with pytest.raises(UsageError, match="no setting wrong"):
            run_checks(run, ["test.broken"], {"test.broken": {"wrong": 1}})
        with pytest.raises(UsageError, match="No check or area is called nothing"):
            run_checks(run, ["nothing"])
        with pytest.raises(UsageError, match="area 'kitchen'"):
            check("test.area", area="kitchen")
    finally:
        del _CHECKS["test.broken"]


def _alarm(name: str, area: str, first: int, last: int, level: str = "warn") -> Finding:
    return Finding(check=name, area=area, level=level, summary=f"{name}.", steps=(first, last))  # type: ignore[arg-type]


def test_findings_merge_by_time_and_cause() -> None:
    findings = [
        _alarm("loss.spike", "loss", 120, 130, "fail"),
        _alarm("data.mix", "data", 100, 900),
        _alarm("grad.explosion", "optimisation", 117, 130),
        _alarm("throughput.drop", "throughput", 118, 200),
        _alarm("loss.spike", "loss", 700, 710),
        Finding(check="lr.plan", area="optimisation", level="unknown", summary="u."),
    ]
    merged = incidents(findings, lag=50)
    assert [[findings[i].check for i in c.findings] for c in merged] == [
        ["data.mix", "grad.explosion", "loss.spike"], ["throughput.drop"], ["loss.spike"],
    ]  # fmt: skip
    first = merged[0]
    assert first.level == "fail" and first.steps == (100, 900) and [m.lag_steps for m in first.order] == [0, 17, 20]
    assert first.summary == "data.mix. Then grad.explosion 17 steps later, loss.spike 20 steps later."
    json.dumps([c.to_json() for c in merged], allow_nan=False)


def test_report_is_what_the_store_keeps(tmp_path: Path) -> None:
    s = Synthetic(n=200)
    s.loss[150] = np.nan
    run = s.write(tmp_path)
    report = run_checks(run)
    run.save_findings(report.to_json())
    kept = open_run(tmp_path).findings()
    assert kept == json.loads(json.dumps(report.to_json()))
    assert [f["incident"] for f in kept if f["level"] == "fail"] == [0]
    assert report.summary_json()["verdicts"]["loss"]["level"] == "fail" and report.step == 200
