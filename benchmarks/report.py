"""Tables, and what must stand beside them: the machine, the versions and the command."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "pandas", "pyarrow", "streamlit", "torch", "transformers", "tensorboard", "trackio", "wandb")


@dataclass
class Table:
    """One table with the sentences that say how to read it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: str = ""

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", self.notes, ""] if self.notes else [f"## {self.title}", ""]
        lines += ["| " + " | ".join(row) + " |" for row in (self.columns, ["---"] * len(self.columns), *self.rows)]
        return "\n".join(lines) + "\n"


def peak_rss_mb() -> float:
    """Most memory that this process held since it began, MB.

    Not ru_maxrss, which on Linux begins with the memory of the process that started this one.
    """
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return math.nan


def machine() -> str:
    """Processor, memory, Python and package versions, date and command, as Markdown."""
    cpu = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} absent")
    return (f"{datetime.now(UTC):%Y-%m-%d}, `{command()}`, {len(os.sched_getaffinity(0))} cores of {cpu}, "
            f"{memory_gib:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}; "
            f"{', '.join(found)}. Load average at the start: {os.getloadavg()[0]:.1f}.\n")


def command() -> str:
    """The command that this process was started with."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def fresh(module: str, *args: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run `python -m MODULE ARGS` in a fresh process and return the JSON object on its last line of output.

    Raises:
        RuntimeError: it failed; the message holds the end of its standard error.
    """
    done = subprocess.run([sys.executable, "-m", module, *map(str, args)], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parent.parent, env=os.environ | (env or {}))
    if done.returncode:
        raise RuntimeError(f"{module} {args} failed: {done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(result, dict)
    return result


def tree_bytes(path: Path) -> int:
    """Size of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
