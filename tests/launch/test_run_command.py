"""`trainvitals run`: the command is what it is without us, and what it logs and prints is in the run."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trainvitals.store import Run
from trainvitals.store.reader import open_run

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_RANK = {name: value for name, value in os.environ.items() if "RANK" not in name and "PROCID" not in name}
ENVIRONMENT = WITHOUT_RANK | {"PYTHONPATH": str(ROOT)}
PRINTS = "for i in range(1, 31): print(f'step:{i}/30 train_loss:{5 - i / 50:.4f} train_time:{i}ms')"
FAKE_WANDB = """
    class Run:
        name, config = "n", {"lr": 0.5, "api_key": "secret"}
        step = 0
        def log(self, data, step=None, commit=None):
            self.step = self.step + 1 if step is None else step
            return "logged"
"""


def script(folder: Path, text: str, name: str = "train.py") -> list[str]:
    (folder / name).write_text(textwrap.dedent(text))
    return [sys.executable, name]


def started(folder: Path, command: list[str], **how: object) -> subprocess.CompletedProcess[bytes]:
    """`trainvitals run --run mine -- COMMAND`, in a folder."""
    ours = [sys.executable, "-m", "trainvitals.cli", "run", "--run", "mine", "--", *command]
    return subprocess.run(ours, **{"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "timeout": 90, **how})


def bare(folder: Path, command: list[str], **how: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, **{"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "timeout": 90, **how})


def loss(run: Run, name: str = "loss/train") -> dict[int, float]:
    series = run.array(name)
    present = [True] * len(series) if series.present is None else series.present.reshape(-1).tolist()
    pairs = zip(series.steps.tolist(), series.values.reshape(-1).tolist(), present, strict=True)
    return {step: value for step, value, there in pairs if there}


def test_output_input_arguments_and_exit_code_are_the_commands_own(tmp_path: Path) -> None:
    command = [*script(tmp_path, """
        import os, sys
        data = sys.stdin.buffer.read()
        sys.stdout.buffer.write(data[::-1] + os.urandom(0)); sys.stdout.flush()
        os.write(2, b"\\xff\\x00\\r\\n" + repr(sys.argv[1:]).encode())
        print(os.getcwd(), sys.stdout.isatty(), [p for p in sys.path if "trainvitals" in p or "launch" in p])
        sys.exit(7)
    """), "--", "--run", "1e999", "/dev/null", "ü"]
    sent = bytes(range(256)) * 1_000
    plain, ours = bare(tmp_path, command, input=sent), started(tmp_path, command, input=sent)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert ours.returncode == 7


def test_what_is_printed_is_in_the_run_with_its_end(tmp_path: Path) -> None:
    done = started(tmp_path, script(tmp_path, PRINTS))
    assert (done.returncode, done.stderr) == (0, b"")
    run = open_run(tmp_path / "mine")
    assert loss(run) == {i: float(f"{5 - i / 50:.4f}") for i in range(1, 31)}
    assert run.imported is not None and "modded-nanogpt: train_loss" in {taken.column for taken in run.imported.taken}
    assert "closed" in set(run.events()["kind"])


@pytest.mark.parametrize("together", [True, False])
def test_files_get_the_bytes_in_the_order_in_which_they_were_written(together: bool, tmp_path: Path) -> None:
    command = script(tmp_path, f"""
        import os
        for i in range(50): os.write(1, b"out %d\\n" % i); os.write(2, b"err %d\\n" % i)
        {PRINTS}
    """)
    with (tmp_path / "out").open("ab") as out, (tmp_path / "err").open("wb") as err:
        out.write(b"before\n")
        out.flush()
        started(tmp_path, command, capture_output=False, stdout=out, stderr=out if together else err)
    with (tmp_path / "out2").open("ab") as out, (tmp_path / "err2").open("wb") as err:
        out.write(b"before\n")
        out.flush()
        bare(tmp_path, command, capture_output=False, stdout=out, stderr=out if together else err)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "out2").read_bytes()
    assert (tmp_path / "err").read_bytes() == (tmp_path / "err2").read_bytes()
    assert len(loss(open_run(tmp_path / "mine"))) == 30


def test_one_pipe_for_both_streams_keeps_their_order(tmp_path: Path) -> None:
    command = script(tmp_path, "import os\nfor i in range(300): os.write(1 + i % 2, b'%d\\n' % i)")
    done = started(tmp_path, command, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.stdout.split() == [b"%d" % i for i in range(300)]


def _in_terminal(folder: Path, command: list[str]) -> bytes:
    """All that a terminal shows of a command."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, ENVIRONMENT)
    shown = b""
    while True:
        try:
            data = os.read(terminal, 4_096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.waitpid(process, 0)
    os.close(terminal)
    return shown


def test_in_a_terminal_it_has_a_terminal(tmp_path: Path) -> None:
    command = script(tmp_path, """
        import os, sys
        print([os.isatty(i) for i in range(3)], os.get_terminal_size(1), os.getpgrp() == os.tcgetpgrp(0))
        print("\\x1b[31mred\\x1b[0m\\ttab", file=sys.stderr)
    """)
    ours = [sys.executable, "-m", "trainvitals.cli", "run", "--run", "mine", "--", *command]
    assert _in_terminal(tmp_path, ours) == _in_terminal(tmp_path, command) != b""


def test_a_signal_goes_on_to_the_command_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    command = script(tmp_path, """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(3)))
        print("ready", flush=True)
        time.sleep(60)
    """)
    ours = [sys.executable, "-m", "trainvitals.cli", "run", "--run", "mine", "--", *command]
    with subprocess.Popen(ours, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"saved\n"
        assert process.wait(60) == 3


def test_a_command_that_a_signal_ends_ends_us_the_same_way(tmp_path: Path) -> None:
    text = f"import os, sys\n{PRINTS}\nsys.stdout.flush(); os.kill(os.getpid(), 9)"
    done = started(tmp_path, script(tmp_path, text))
    assert done.returncode == -signal.SIGKILL
    kinds = set(open_run(tmp_path / "mine").events()["kind"])
    assert "failed" in kinds and "closed" not in kinds


@pytest.mark.parametrize(("command", "code"), [(["no-such-program-anywhere"], 127), (["./plain.txt"], 126)])
def test_a_command_that_cannot_be_started_is_one_sentence(command: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("text")
    done = started(tmp_path, command)
    assert done.returncode == code
    assert done.stderr.startswith(f"trainvitals: {command[0]} cannot be started".encode())
    assert b"Traceback" not in done.stderr


def test_a_background_process_that_keeps_our_output_holds_nobody_up(tmp_path: Path) -> None:
    began = time.monotonic()
    done = started(tmp_path, ["sh", "-c", "sleep 50 & echo done"])
    assert done.stdout == b"done\n" and time.monotonic() - began < 45


def wandb_package(folder: Path) -> None:
    place = folder / "wandb" / "sdk"
    place.mkdir(parents=True)
    for package in (place.parent, place):
        (package / "__init__.py").write_text("")
    (place / "wandb_run.py").write_text(textwrap.dedent(FAKE_WANDB))


LOGS = """
    from wandb.sdk.wandb_run import Run
    run = Run()
    for i in range(20):
        assert run.log({"train/loss": 2.0 - i / 64, "deep": {"x": i}, "text": "no", "flag": True}) == "logged"
"""


def test_wandb_log_is_heard_without_its_secrets(tmp_path: Path) -> None:
    wandb_package(tmp_path)
    assert started(tmp_path, script(tmp_path, LOGS)).returncode == 0
    run = open_run(tmp_path / "mine")
    assert loss(run) == {i: 2.0 - i / 64 for i in range(20)}
    assert loss(run, "deep/x")[19] == 19.0
    assert run.card.notes["config"]["lr"] == 0.5 and "api_key" not in run.card.notes["config"]


def test_what_a_hook_heard_wins_over_its_printed_twin(tmp_path: Path) -> None:
    wandb_package(tmp_path)
    started(tmp_path, script(tmp_path, LOGS + "    " + PRINTS))
    run = open_run(tmp_path / "mine")
    assert loss(run) == {i: 2.0 - i / 64 for i in range(20)}
    assert loss(run, "printed: train_loss")[30] == 4.4
    assert run.imported is not None
    assert {t.column for t in run.imported.taken if t.signal == "loss/train"} == {"train/loss"}


def test_a_hook_that_comes_after_the_printed_rows_wins_still(tmp_path: Path) -> None:
    wandb_package(tmp_path)
    waits = "import os, sys, time; sys.stdout.flush()\nwhile not os.path.exists('mine/frames'): time.sleep(.1)"
    started(tmp_path, script(tmp_path, f"{PRINTS}\n{waits}\n" + textwrap.dedent(LOGS)))
    assert loss(open_run(tmp_path / "mine")) == {i: 2.0 - i / 64 for i in range(20)}


def test_forked_and_spawned_children_are_heard_and_other_ranks_are_not(tmp_path: Path) -> None:
    wandb_package(tmp_path)
    command = script(tmp_path, """
        import multiprocessing, os, sys
        def log(name, rank):
            os.environ["RANK"] = str(rank)
            from wandb.sdk.wandb_run import Run
            for i in range(5): Run().log({name: 1.5}, step=i)
        if __name__ == "__main__":
            for how, rank in (("fork", 0), ("spawn", 0), ("fork", 1)):
                child = multiprocessing.get_context(how).Process(target=log, args=(f"{how}{rank}", rank))
                child.start(); child.join(); assert child.exitcode == 0
    """)
    assert started(tmp_path, command).stderr == b""
    run = open_run(tmp_path / "mine")
    assert len(loss(run, "fork0")) == len(loss(run, "spawn0")) == 5
    assert "fork1" not in run.signals()


def test_a_sitecustomize_of_the_users_own_runs_as_before(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys; sys.users_own = 1")
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    command = script(tmp_path, "import sys; print(sys.users_own, sys.modules['sitecustomize'].__file__)")
    plain, ours = bare(tmp_path, command, env=environment), started(tmp_path, command, env=environment)
    assert ours.stdout == plain.stdout and ours.stdout.startswith(b"1 ")


FAULTS = {
    "the run folder is a file": "mine",
    "nothing can be made beside it": ".mine.heard",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_job_does_not_notice_that_nothing_can_be_stored(fault: str, tmp_path: Path) -> None:
    wandb_package(tmp_path)
    (tmp_path / FAULTS[fault]).write_text("in the way")
    command = script(tmp_path, LOGS + "    " + PRINTS)
    plain, ours = bare(tmp_path, command), started(tmp_path, command)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout) == (0, plain.stdout)
    assert b"Traceback" not in ours.stderr
    assert len(ours.stderr.splitlines()) == (1 if "file" in fault else 0)


def test_the_job_does_not_notice_that_what_hears_it_is_taken_away(tmp_path: Path) -> None:
    wandb_package(tmp_path)
    command = script(tmp_path, "import shutil; shutil.rmtree('.mine.heard')\n" + textwrap.dedent(LOGS) + PRINTS)
    (tmp_path / ".mine.heard").mkdir()
    ours = started(tmp_path, command)
    assert ours.returncode == 0 and ours.stdout.count(b"\n") == 30


@pytest.mark.parametrize("broken", ["raise RuntimeError('old')", "class Run: log = 5"])
def test_a_tool_that_is_not_what_it_was_fails_as_it_would_without_us(broken: str, tmp_path: Path) -> None:
    wandb_package(tmp_path)
    (tmp_path / "wandb" / "sdk" / "wandb_run.py").write_text(broken)
    command = script(tmp_path, "import wandb.sdk.wandb_run\nprint('here')")
    plain, ours = bare(tmp_path, command), started(tmp_path, command)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert ours.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]


def test_the_same_run_again_is_another_attempt_and_loses_nothing(tmp_path: Path) -> None:
    started(tmp_path, script(tmp_path, PRINTS))
    again = "for i in range(21, 26): print(f'step:{i}/30 train_loss:1.0000 train_time:1ms')"
    started(tmp_path, script(tmp_path, again))
    run = open_run(tmp_path / "mine")
    found = loss(run)
    assert [found[i] for i in (1, 20, 21, 25)] == [4.98, 4.6, 1.0, 1.0] and max(found) == 25
    assert len(run.attempts) == 2 and run.status == "finished"


def test_other_ranks_are_the_command_itself(tmp_path: Path) -> None:
    done = started(tmp_path, script(tmp_path, PRINTS), env=ENVIRONMENT | {"SLURM_PROCID": "3"})
    assert done.returncode == 0 and done.stdout.count(b"\n") == 30
    assert not (tmp_path / "mine").exists() and not (tmp_path / ".mine.heard").exists()
