"""The watcher on runs that are written in simulated time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from checks.watch import looking
from checks.watch.channels import Channel
from checks.watch.command import turn, watch
from checks.watch.hours import quiet_hours
from checks.watch.message import Message
from checks.watch.metrics import GAUGES, Scraped, serve
from checks.watch.outbox import Outbox
from checks.watch.state import FILE, State, StateFile
from checks.watch.watcher import Options, Watcher, daily
from tests.watch.simulated import Simulated
from trainvitals.errors import UsageError

EVERY = Options(busy_share=None)
LOOK = 15.0


def _follow(watcher: Watcher, run: Simulated, seconds: float, reports: bool = False) -> list[tuple[float, Message]]:
    """Messages while a run makes no step, and how long after its last one each came."""
    found, last = [], run.now
    while run.now - last < seconds:
        run.idle(LOOK, reports)
        found += [(run.now - last, m) for m in watcher.look(run.now)]
    return found


def _watched(run: Simulated, blocks: int, **pauses: float) -> tuple[Watcher, list[Message]]:
    watcher, messages = Watcher([str(run.path.parent)], State(), EVERY, print), list[Message]()
    for _ in range(blocks):
        run.run(20, **pauses)  # type: ignore[arg-type]
        messages += watcher.look(run.now)
    return watcher, messages


@pytest.mark.parametrize("reports", [False, True])
def test_a_hang_is_told_once_within_three_minutes(tmp_path: Path, reports: bool) -> None:
    """33 minutes of it; whether the process still reports decides what it is called. A step ends it."""
    run = Simulated(tmp_path / "runs" / "a")
    watcher, before = _watched(run, 8, pause=40.0, every=30)
    told = _follow(watcher, run, 33 * 60, reports)
    assert before == [] and len(told) == 1
    after, message = told[0]
    assert after <= 180 and message.level == "fail" and message.step == run.step
    assert message.what == ("no progress" if reports else "silent")
    ends = []
    for _ in range(4):
        run.run(3)
        ends += watcher.look(run.now)
    assert [m.kind for m in ends if m.incident.startswith("stall")] == ["over"]


def test_pauses_like_those_before_are_no_hang(tmp_path: Path) -> None:
    """A checkpoint that takes three minutes now and then wakes nobody, once the run has shown it."""
    run = Simulated(tmp_path / "runs" / "a")
    watcher, _ = _watched(run, 4, pause=180.0, every=20)
    told = []
    for _ in range(3):
        told += _follow(watcher, run, 200)
        run.run(20)
        told += [(0.0, m) for m in watcher.look(run.now)]
    assert told == []


def test_a_finished_run_and_one_that_was_dead_before_wake_nobody(tmp_path: Path) -> None:
    """Neither as it ends, nor hours later, nor when a watcher first meets it."""
    run = Simulated(tmp_path / "runs" / "a")
    watcher, _ = _watched(run, 6)
    run.writer.close()
    assert _follow(watcher, run, 3600) == []
    dead = Simulated(tmp_path / "dead" / "b")
    dead.run(100)
    dead.now += 86_400
    assert _follow(Watcher([str(tmp_path / "dead")], State(), EVERY, print), dead, 3600) == []


def test_a_resume_is_one_warning_and_no_hang(tmp_path: Path) -> None:
    """The job died, and another attempt goes on from an earlier step."""
    # An hour ago: the other attempt starts by the clock of this machine, after the rows of the first.
    run = Simulated(tmp_path / "runs" / "a", now=time.time() - 3600)
    watcher, _ = _watched(run, 6)
    again = Simulated(run.path, 7, start_step=100, now=run.now + 30)
    told = []
    for _ in range(4):
        again.run(5)
        told += watcher.look(again.now)
    assert [(m.level, m.what, m.kind) for m in told] == [("warn", "restarted", "opened")]


def test_a_loss_that_rises_is_one_incident_whatever_restarts(tmp_path: Path) -> None:
    """Watchers that are replaced at every look, with their state read from the disk, tell it as one would."""
    run, taken = Simulated(tmp_path / "runs" / "a"), list[Message]()
    file = StateFile(tmp_path / "state")
    for block in range(16):
        run.factor = 1.5 if block >= 8 else 1.0
        run.run(20)
        with file.held():
            state, damage = file.read()
            box = Outbox(file.place, [Channel("c", taken.append)], print)
            turn(Watcher([str(run.path.parent)], state, EVERY, print), box, file, Scraped(), run.now)
            box.posts[0].turn(run.now)
        assert not damage
    assert len({m.id for m in taken}) == len(taken)
    loss = [m for m in taken if m.incident == taken[0].incident]
    assert loss[0].kind == "opened" and abs(loss[0].step - 161) <= 3
    assert [m.kind for m in loss].count("opened") == 1 and len(loss) <= 3
    assert {m.incident for m in taken} == {loss[0].incident}


def test_two_watchers_on_one_state_are_one_too_many(tmp_path: Path) -> None:
    """The second is refused; a damaged state is kept aside and said."""
    file = StateFile(tmp_path)
    with file.held(), pytest.raises(UsageError, match="Another watcher"), StateFile(tmp_path).held():
        pass
    file.write(State(digested=5.0))
    assert file.read()[0].digested == 5.0
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("5.0", "6.0"))
    state, damage = file.read()
    assert state == State() and "watch.damaged" in damage and (tmp_path / "watch.damaged").exists()


def test_a_run_that_cannot_be_read_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are watched on."""
    said = list[str]()
    for name in ("a", "b"):
        Simulated(tmp_path / "runs" / "deep" / name).run(30)
    judged = looking.run_checks

    def fails(run: object, **rest: object) -> object:
        if str(run.path).endswith("/a"):  # type: ignore[attr-defined]
            raise ValueError("broken")
        return judged(run, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "run_checks", fails)
    watcher = Watcher([str(tmp_path / "runs")], State(), EVERY, said.append)
    for i in range(3):
        watcher.look(1e9 + i)
    assert len(said) == 1 and "deep/a" in said[0]
    assert [report is not None for _, (_, report) in sorted(watcher.reports.items())] == [False, True]


def test_quiet_hours_hold_warnings_and_tell_them_after(tmp_path: Path) -> None:
    """As one message; the daily digest names every run."""
    run = Simulated(tmp_path / "runs" / "a")
    options = Options(busy_share=None, quiet=quiet_hours("22:00-07:00"))
    watcher = Watcher([str(tmp_path / "runs")], State(), options, print)
    warn, fail = (Message(level, "opened", level, "a", "i", 1, "w", f"{level} title", "", 0.0)
                  for level in ("warn", "fail"))  # fmt: skip
    night, day = 1_700_006_400 + 23 * 3600.0, 1_700_006_400 + 33 * 3600.0
    assert watcher._through_the_night([warn, fail], night) == [fail]
    after = watcher._through_the_night([], day)
    assert [m.kind for m in after] == ["digest"] and "warn title" in after[0].body
    run.run(30)
    watcher.look(day)
    assert "a: " in daily(watcher, day).body


def test_what_is_scraped_is_what_the_official_parser_reads(tmp_path: Path) -> None:
    """Over HTTP, with a name that tries to break the format; the Grafana file asks for nothing else."""
    parser = pytest.importorskip("prometheus_client.parser")
    from urllib.request import urlopen

    run = Simulated(tmp_path / "runs" / 'a"b\\c{d}')
    file, scraped = StateFile(tmp_path / "state"), Scraped()
    file.place.mkdir()
    watcher = Watcher([str(tmp_path / "runs")], State(), EVERY, print)
    for _ in range(3):
        run.run(20)
        turn(watcher, Outbox(file.place, [Channel("c", print)], print), file, scraped, run.now)
    with urlopen(f"http://127.0.0.1:{serve(scraped, '0')}/metrics", timeout=10) as answer:
        families = {f.name: f for f in parser.text_string_to_metric_families(answer.read().decode())}
    assert families.keys() == GAUGES.keys()
    step = families["trainvitals_last_step"].samples[0]
    assert step.value == 60 and step.labels == {"run": str(run.path)}
    assert {s.labels["area"] for s in families["trainvitals_level"].samples} >= {"loss", "throughput"}
    board = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
    asked = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    assert asked and all(any(name in expression for name in GAUGES) for expression in asked)


def test_once_prints_and_stores_nothing(tmp_path: Path) -> None:
    """JSON with --json; without a channel a lasting watch is refused."""
    run = Simulated(tmp_path / "runs" / "a")
    run.run(60)
    before = sorted(p.name for p in (tmp_path / "runs").iterdir())
    told = json.loads(CliRunner().invoke(watch, [str(tmp_path / "runs"), "--once", "--json"]).output)
    assert told["runs"][str(run.path)]["step"] == 60 and told["messages"] == []
    assert before == sorted(p.name for p in (tmp_path / "runs").iterdir())
    refused = CliRunner().invoke(watch, [str(tmp_path / "runs")])
    assert isinstance(refused.exception, UsageError)
