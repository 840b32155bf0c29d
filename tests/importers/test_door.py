"""The door: what is at a path, where it goes, how it grows, what a kill leaves, and one sentence for a bad input."""

import gzip
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trainvitals as tv
from collectors.importers import cache, textfile
from collectors.importers.csv_table import CsvTable
from collectors.importers.door import sessions
from collectors.importers.importer import Item, RunOf
from collectors.importers.session import Session
from tests.importers.test_formats import imported, rows
from trainvitals.errors import RunNotFound, TrainVitalsError, UsageError
from trainvitals.store import Run, open_run


def table(path: Path, steps: range, *, loss: float = 3.0, extra: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{step},{loss - step / 1024!r}" for step in steps]
    path.write_text("step,loss\n" + "\n".join(lines) + f"\n{extra}")
    return path


def add(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def one(path: Path, run: Path) -> Session:
    [found] = sessions(path, run=run)
    return found


def opened(session: Session) -> Run:
    session.close()
    return open_run(session.folder)


# ---- growth ----------------------------------------------------------------------------------------------


def test_a_growing_log_is_one_attempt_however_many_looks_there_are(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 11))
    for step in range(11, 15):
        imported(log, tmp_path / "run")
        add(log, f"{step},2.0")
    live = one(log, tmp_path / "run")
    assert live.look() and not live.look()
    add(log, "15,2.0", "16,nan")
    assert live.look() and not live.afresh
    run = opened(live)
    assert list(rows(run, "loss/train")) == list(range(1, 17)) and math.isnan(rows(run, "loss/train")[16])
    assert len(run.attempts) == 1 and run.problems() == [] and not run.imported.notes  # type: ignore[union-attr]
    assert len([e for e in run._contents.events if e.kind == "started"]) == 1


def test_a_line_that_is_being_written_counts_once_it_is_whole(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 4), extra="4,2.")
    assert rows(imported(log, tmp_path / "run"), "loss/train")[4] == 2.0
    with log.open("a") as file:
        file.write("75\n5,2.5\n")
    run = imported(log, tmp_path / "run")
    assert rows(run, "loss/train") == {1: 3 - 1 / 1024, 2: 3 - 2 / 1024, 3: 3 - 3 / 1024, 4: 2.75, 5: 2.5}
    assert "may be cut" in " ".join(run.events()["message"])


@pytest.mark.parametrize("how", ["other", "shorter", "changed"])
def test_a_replaced_log_is_imported_afresh_and_says_so(how: str, tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 4001))
    imported(log, tmp_path / "run")
    if how == "changed":
        text = log.read_text()
        log.write_text(text[:-20].replace("4000,", "4000,") + "9" + text[-19:])
        add(log, "4001,1.0")
    else:
        os.replace(table(tmp_path / "other.csv", range(1, 4500 if how == "other" else 100), loss=9.0), log)
    session = one(log, tmp_path / "run")
    session.look()
    assert "the source was replaced" in session.afresh
    found = rows(opened(session), "loss/train")
    assert len(found) == {"other": 4499, "shorter": 99, "changed": 4001}[how]


def test_a_copy_that_only_grew_goes_on(tmp_path: Path) -> None:
    """As rsync leaves it: another file at the same path, which begins as the old one did."""
    log = table(tmp_path / "log.csv", range(1, 500))
    imported(log, tmp_path / "run")
    os.replace(table(tmp_path / "copy.csv", range(1, 600)), log)
    session = one(log, tmp_path / "run")
    assert session.look() and not session.afresh
    assert len(rows(opened(session), "loss/train")) == 599


def test_going_back_makes_a_branch_and_a_repeat_none(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 101))
    add(log, *(f"{step},{3.0 - step / 1024!r}" for step in range(50, 101)))  # joined twice
    add(log, *(f"{step},{2.0 - step / 1024!r}" for step in range(61, 121)))  # resumed from 60
    run = imported(log, tmp_path / "run")
    found = rows(run, "loss/train")
    assert len(found) == 120 and found[60] == 3 - 60 / 1024 and found[61] == 2 - 61 / 1024
    assert run.branches()[["from_step", "to_step"]].to_numpy().tolist() == [[61, 100]]
    assert run.array("loss/train", branch=0).values[0] == 3 - 61 / 1024
    notes = " ".join(run.imported.notes)  # type: ignore[union-attr]
    assert "51 rows stand in the log twice" in notes and "go back 1 time without a word" in notes


# ---- kills, and others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("afresh", [False, True])
def test_a_kill_at_any_moment_costs_nothing(afresh: bool, tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 61))
    add(log, *(f"{step},{2.0 - step / 1024!r}" for step in range(41, 81)))
    earlier = [str(table(tmp_path / "earlier.csv", range(1, 50), loss=9.0))] if afresh else []
    words = [str(log), str(tmp_path / "runs"), "3", *earlier]
    done = subprocess.run([sys.executable, "-m", "tests.importers.killing", *words], capture_output=True, text=True,
                          check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] >= 6 and not told["wrong"] and (afresh or told["afresh"] <= 2), told


def test_a_log_replaced_after_a_kill_is_imported_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = table(tmp_path / "log.csv", range(1, 2001))
    monkeypatch.setattr("collectors.importers.session.SAVE_SECONDS", 0.0)
    first = one(log, tmp_path / "run")
    read = CsvTable.read

    def interrupted(self: CsvTable, run: RunOf, state: dict[str, Any]) -> Iterator[Item]:
        yield from read(self, run, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(CsvTable, "read", interrupted)
        first.look()
    os.replace(table(tmp_path / "other.csv", range(1, 3001), loss=9.0), log)
    second = one(log, tmp_path / "run")
    second.look()
    assert "the source was replaced" in second.afresh
    assert rows(opened(second), "loss/train")[1] == 9.0 - 1 / 1024


def test_two_processes_take_turns(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 3001))
    script = ("import sys; from collectors.importers.door import sessions; "
              "[s] = sessions(sys.argv[1], run=sys.argv[2]); s.look(); s.close()")
    both = [subprocess.Popen([sys.executable, "-c", script, str(log), str(tmp_path / "run")]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    run = open_run(tmp_path / "run")
    assert len(rows(run, "loss/train")) == 3000 and run.rows_by_frame()[0] == {"stated_loss": 3000}
    assert len(run.attempts) == 1 and run.problems() == []


def test_two_sessions_on_one_growing_log_do_not_mix(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 11))
    a, b = one(log, tmp_path / "run"), one(log, tmp_path / "run")
    for step in range(11, 19):
        (a if step % 2 else b).look()
        add(log, f"{step},2.0")
    a.look()
    b.close()
    run = opened(a)
    assert list(rows(run, "loss/train")) == list(range(1, 19)) and run.problems() == [] and len(run.attempts) == 1


def test_a_damaged_record_means_import_afresh_and_no_pass_meanwhile(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 31))
    run = imported(log, tmp_path / "run")
    record = tmp_path / "run" / "import.json"
    record.write_bytes(record.read_bytes().replace(b'"blind"', b'"blond"'))
    run.refresh()
    assert run.imported is not None and {spot.kind for spot in run.imported.blind} >= {"nonfinite", "sampled"}
    assert len(rows(imported(log, tmp_path / "run"), "loss/train")) == 30


# ---- places ----------------------------------------------------------------------------------------------


def test_open_run_takes_a_log_and_writes_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = table(tmp_path / "elsewhere" / "läuft ✓.csv", range(1, 6))
    run = tv.open_run(log)
    assert len(rows(run, "loss/train")) == 5 and os.listdir(log.parent) == [log.name]
    assert Path(run.path).parent == Path("runs/imported")
    assert tv.open_run(run.path).name == run.name


def test_a_folder_that_cannot_be_written_sends_the_cache_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                   ) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    place = cache.place_of(tmp_path / "log.csv")
    assert place.parent == tmp_path / f"trainvitals-imported-{os.getuid()}"
    assert place.parent.stat().st_mode & 0o77 == 0


def test_a_run_folder_of_somebody_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        one(table(tmp_path / "log.csv", range(1, 3)), tmp_path / "run").look()
    assert os.listdir(tmp_path / "run") == ["thesis.txt"]


def test_a_folder_of_logs_is_several_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "deep/b"):
        table(tmp_path / "logs" / f"{name}.csv", range(1, 4))
    (tmp_path / "logs" / "loop").symlink_to(tmp_path / "logs")
    (tmp_path / "logs" / "README.md").write_text("# notes\n")
    found = sessions(tmp_path / "logs")
    assert [s.folder.name for s in found] == ["a", "b", "b-2"]
    with pytest.raises(UsageError, match="holds 3 runs"):
        tv.open_run(tmp_path / "logs")
    assert len(tv.list_runs(found[0].folder.parent)) == 3


def test_a_table_of_several_runs_is_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "seeds.csv"
    log.write_text("seed,step,val_loss\n" + "".join(f"{seed},{step},{seed + step / 8}\n" for seed in range(3)
                                                    for step in range(4)))
    found = sessions(log, run=tmp_path / "runs")
    for session in found:
        session.look()
    assert [rows(opened(s), "loss/val")[3] for s in found] == [0.375, 1.375, 2.375]


# ---- bad input -------------------------------------------------------------------------------------------


def bomb(path: Path) -> None:
    with gzip.open(path, "wb") as file:
        file.write(b"step,loss\n" + b"1,2.0\n" * 1_000_000)


BAD = {
    "nothing there": (None, RunNotFound, "there is nothing"),
    "an empty folder": (lambda path: path.mkdir(), RunNotFound, "No log was found"),
    "an empty file": (lambda path: path.touch(), UsageError, "is empty"),
    "a packed file": (bomb, UsageError, "packed"),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n" + bytes(range(256)) * 10), UsageError, "no format"),
    "prose": (lambda path: path.write_text("It was a dark night.\nThe loss rose.\n"), UsageError, "tried: "),
    "a pipe": (os.mkfifo, UsageError, "neither a file nor a folder"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04\x95\x10"), UsageError, "no format"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_costs_one_sentence(case: str, tmp_path: Path) -> None:
    make, error, says = BAD[case]
    if make is not None:
        make(tmp_path / "x")
    with pytest.raises(error, match=says) as raised:
        sessions(tmp_path / "x", run=tmp_path / "run")
    assert str(tmp_path / "x") in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 3))
    log.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        sessions(log)


def test_a_line_of_200_mb_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 4))
    with log.open("ab") as file:
        for _ in range(200):
            file.write(b"7" * 1_000_000)
        file.write(b"\n4,2.5\n")
    script = ("import resource, sys; from collectors.importers.door import sessions; [s] = sessions(*sys.argv[1:2], "
              "run=sys.argv[2]); base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; s.look(); s.close(); "
              "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)")
    done = subprocess.run([sys.executable, "-c", script, str(log), str(tmp_path / "run")], capture_output=True,
                          text=True, check=True)
    run = open_run(tmp_path / "run")
    assert int(done.stdout) < 80 and list(rows(run, "loss/train")) == [1, 2, 3, 4]
    assert "more than a megabyte" in " ".join(run.events()["message"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "cp1252", "utf-8"])
def test_encodings(encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "CHUNK_BYTES", 101)
    text = "step,loss,Größe\n" + "".join(f"{step},{step / 8},{step}\n" for step in range(1, 60))
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "log.csv").write_bytes(mark + text.encode(encoding))
    run = imported(tmp_path / "log.csv", tmp_path / "run")
    assert rows(run, "loss/train") == {step: step / 8 for step in range(1, 60)} and len(rows(run, "Größe")) == 59


def test_a_german_table(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("Step;train loss;lr\r\n1;2,5;0,001\r\n2;nan;0,001\r\n3;;0,001\r\n"
                                      "4;1,5e-3;0,001\r\n")
    run = imported(tmp_path / "log.csv", tmp_path / "run")
    found = rows(run, "loss/train")
    assert found[1] == 2.5 and math.isnan(found[2]) and 3 not in found and found[4] == 1.5e-3
    assert "nonfinite" in {spot.kind for spot in run.imported.blind}  # type: ignore[union-attr]


def test_maps_win_and_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("n,bpt,loss,dt\n" + "".join(f"{n},{n / 4},9,{100 + n}\n" for n in range(1, 9)))
    maps = ["step=n", "loss/train=bpt*bits", "throughput/step_time=dt*ms"]
    run = imported(log, tmp_path / "run", maps=maps)
    assert rows(run, "loss/train")[4] == math.log(2) and rows(run, "loss")[4] == 9.0
    assert rows(run, "throughput/step_time")[8] == 108 * 1e-3
    add(log, "9,1.0,9,100")
    assert rows(imported(log, tmp_path / "run"), "loss/train")[9] == math.log(2)
    for bad in ("loss/train", "nonsense=loss", "router/load=loss"):
        with pytest.raises(UsageError):
            sessions(log, run=tmp_path / "other", maps=[bad])
    told = imported(log, tmp_path / "other", maps=["loss/train=lost"]).imported
    assert told is not None and "no column 'lost'" in " ".join(told.notes)
    with pytest.raises(UsageError, match="no format 'tfevent'"):
        sessions(log, format="tfevent")


def test_no_disk_no_loss(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", range(1, 4))
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises((TrainVitalsError, OSError)):
        one(log, tmp_path / "run").look()
