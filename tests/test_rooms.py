"""A machine that only reads runs needs no torch and no streamlit: a fresh process shows what import-linter cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

READ_A_RUN = """
import json, sys
import trainvitals as tv
run = tv.open_run(sys.argv[1])
assert list(run.series("my/metric")["value"]) == [1.0, 2.0]
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
WRITE_A_RUN = """
import json, sys
from trainvitals.store import RunWriter
writer = RunWriter(sys.argv[1], when_full="wait")
frame = writer.frame("custom", [])
frame.append(0, {"my/metric": 1.0})
frame.append(1, {"my/metric": 2.0})
writer.close()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def modules_of(script: str, *args: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `script`."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, *args], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_writing_and_reading_a_run_loads_no_other_room(tmp_path: Path) -> None:
    others = {"torch", "transformers", "streamlit", "altair", "collectors", "checks", "dashboard"}
    assert not modules_of(WRITE_A_RUN, str(tmp_path / "run")) & others
    assert not modules_of(READ_A_RUN, str(tmp_path / "run")) & others


def test_the_command_line_starts_without_torch_and_streamlit() -> None:
    loaded = modules_of("import json, sys, trainvitals.cli\nprint(json.dumps(sorted(sys.modules)))")
    assert not loaded & {"torch", "streamlit", "pandas"}
