"""A policy is read or refused in one line; what it sets reaches the checks, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from checks import run_checks
from checks.judged_by import judged_by
from checks.policy import SHIPPED, Policy, limits, read, shipped
from checks.reading import Snapshot
from checks.stream.book import bounds_instead, open_book
from checks.stream.layout import LOSS
from tests.checks.synthetic import Synthetic
from trainvitals.cli import cli
from trainvitals.errors import UsageError
from trainvitals.store import Run, open_run


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Steps take 1.6 times as long from step 151 on, and the loss is 4 % higher."""
    made = Synthetic(n=300, seed=3)
    made.step_time[150:] *= 1.6
    made.loss[150:] *= 1.04
    return made.write(tmp_path_factory.mktemp("slow"))


BAD = [
    ("[lr.jmp]\nwarn_factor = 1.5", "no check or scan is called lr.jmp. Did you mean lr.jump?"),
    ("[lr.jump]\nwarn_fctor = 1.5", "has no setting warn_fctor. Did you mean warn_factor?"),
    ('[lr.jump]\nwarn_factor = "high"', 'warn_factor of lr.jump is "high". Give a number.'),
    ("[lr.jump]\nwarn_factor = true", "Give a number"),
    ("[lr.jump]\nwarn_factor = nan", "Give a number"),
    ("[lr.jump]\nwarn_factor = 0.5", "of at least 1"),
    ("[lr.jump]\nwarn_factor = 3.0", "fail_factor of lr.jump is 2 and must lie above warn_factor, which is 3"),
    ("[data.mix]\nwarn_tvd = 2", "above 0 and at most 1"),
    ("[throughput.drop]\nk = 2.5", "Give a whole number"),
    ("[throughput.drop]\nk = 20", "k counts some of n"),
    ("[loss.spike]\nz = 6", "loss.spike has nothing to set. See [scan.loss]"),
    ("[scan.loss]\nraw = 1", "has no setting raw"),
    ("[scan.loss]\nwarn = 0.05", "fail of scan.loss is 0.02 and must lie above warn"),
    ('[scaling.on_curve]\nladder = "x"', "from the program that calls it"),
    ('[scaling.repetition]\nallowed_epochs = {web = "many"}', "a table of numbers"),
    ("[lr]\njump = 2", "Write [lr.jump]"),
    ("warn_factor = 1.5", "stands outside a section"),
    ("[lr.jump", "is not TOML"),
    ("a = " + "[" * 3000, "is not TOML"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_bad_policy_is_one_line_with_the_remedy(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as told:
        read(write(tmp_path, text))
    assert says in str(told.value) and "\n" not in str(told.value) and told.value.exit_code >= 64


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    binary, large = tmp_path / "binary", tmp_path / "large"
    binary.write_bytes(b"\xff\xfe\x00[")
    large.write_bytes(b"#" * (2 << 20))
    for path in (binary, large, tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError):
            read(path)


def test_the_shipped_file_holds_the_shipped_values() -> None:
    assert read(SHIPPED) == Policy({}, str(SHIPPED)) and read(SHIPPED).digest == ""


def test_every_shipped_value_is_within_its_limits() -> None:
    for name, settings in shipped().items():
        for key, value in settings.items():
            low, high = limits(name, key)
            assert not isinstance(value, float) or low <= value <= high, (name, key)


def test_the_digest_names_the_thresholds_and_not_the_file(tmp_path: Path) -> None:
    one = read(write(tmp_path, "[lr.jump]\nwarn_factor = 1.5\n[data.mix]\nstarved = 0.4"))
    text = "# other words\n[data.mix]\nstarved = 0.4\n[lr.jump]\nwarn_factor = 1.5\nfail_factor = 2.0"
    same = read(write(tmp_path, text))
    assert one.digest == same.digest != read(write(tmp_path, "[lr.jump]\nwarn_factor = 1.6")).digest


def test_a_setting_reaches_its_check(slow: Run, tmp_path: Path) -> None:
    policy = read(write(tmp_path, "[throughput.drop]\nwarn_factor = 1.9"))
    levels = [run_checks(slow, "throughput.drop", p).findings[0].level for p in (None, policy.settings)]
    assert levels == ["warn", "pass"]


def test_bounds_of_the_scan_reach_every_check_of_it_and_leave_the_shipped_state_alone(slow: Run) -> None:
    loud = {"scan.loss": {"warn": 0.3, "fail": 0.5, "lone": 0.5, "brief": 0.5}}
    before = run_checks(slow, "loss.divergence").findings
    judged = run_checks(slow, "loss.divergence", loud).findings
    assert "fail" in {f.level for f in before} and {f.level for f in judged} <= {"pass", "unknown"}
    assert judged[0].threshold is not None and judged[0].threshold.warn == pytest.approx(30)
    assert run_checks(slow, "loss.divergence").findings == before
    snapshot = Snapshot(slow, loud)
    own, other = open_book(slow).one("loss/train"), open_book(snapshot).one("loss/train")  # type: ignore[arg-type]
    assert own is not None and other is not None and own.bounds == LOSS and other.bounds.warn == 0.3


def test_states_of_both_are_kept_beside_the_run(slow: Run) -> None:
    loud = {"scan.loss": {"warn": 0.3, "fail": 0.5}}
    first = [run_checks(slow, ["loss.divergence"], s).findings for s in (None, loud)]
    again = open_run(slow.path)
    names = {path.name for path in (Path(slow.path) / "judge").iterdir()}
    assert {"streams.bin", "streams-policy.bin"} <= names
    assert [run_checks(again, ["loss.divergence"], s).findings for s in (None, loud)] == first


def test_a_bound_that_there_is_not_is_refused(slow: Run) -> None:
    for settings in ({"scan.loss": {"wran": 0.1}}, {"scan.lost": {"warn": 0.1}}):
        with pytest.raises(UsageError):
            run_checks(slow, settings=settings)
    assert bounds_instead({"scan.loss": {"warn": LOSS.warn}}) == {}


def test_check_takes_a_policy_and_stores_under_it(slow: Run, tmp_path: Path) -> None:
    path = write(tmp_path, "[throughput.drop]\nwarn_factor = 1.9\nfail_factor = 3.0")
    runner = CliRunner()
    told = runner.invoke(cli, ["check", str(slow.path), "--json", "--policy", str(path)])
    answers = {f["check"]: f for f in json.loads(told.stdout)["findings"]}
    assert answers["throughput.drop"]["level"] == "pass"
    assert answers["throughput.drop"]["certificate"] == "not measured under the thresholds of this policy."
    assert "healthy steps" in answers["loss.divergence"]["certificate"]
    assert open_run(slow.path).stored_findings()["judge"] == judged_by(read(path).settings) != judged_by()
    wrong = runner.invoke(cli, ["check", str(slow.path), "--policy", str(tmp_path / "absent.toml")])
    assert isinstance(wrong.exception, UsageError)


def test_the_board_judges_again_under_another_policy(
    slow: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dashboard.server.judging import answer

    def level() -> str:
        found = answer({}, str(slow.path), "")
        return next(f["level"] for f in found["findings"] if f["check"] == "throughput.drop")

    path = write(tmp_path, "[throughput.drop]\nwarn_factor = 1.9")
    assert level() == "warn"
    monkeypatch.setenv("TRAINVITALS_POLICY", str(path))
    assert level() == "pass"
    path.write_text("[lr.jmp]")
    assert "lr.jump" in answer({}, str(slow.path), "")["error"]
    monkeypatch.delenv("TRAINVITALS_POLICY")
    assert level() == "warn"
