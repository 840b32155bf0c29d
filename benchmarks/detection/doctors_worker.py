"""Runs in the environment that has the packages: CSV paths on standard input -> alarms as JSON lines, one a path.

Nothing of ours is imported here. Each package is asked by the entry point of its own command line.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable
from typing import Any

Findings = list[str]


def _printed(module: str, words: list[str]) -> Any:
    """What a command prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        sys.argv = [module, *words]
        importlib.import_module(f"{module}.cli").main()
    return json.loads(out.getvalue())


def runmedic(path: str) -> Findings:
    """Above `info`."""
    return [f["check"] for f in _printed("runmedic", ["diagnose", path, "--json"])[0]["findings"]
            if f["severity"] != "info"]


def trainproof(path: str) -> Findings:
    """WARN and FAIL."""
    told = _printed("trainproof", ["epoch", path, "--format", "csv", "--map", "loss=train_loss", "--json"])
    return [f["id"] for f in told["reports"][0]["findings"] if f["level"] in ("WARN", "FAIL")]


def trainspotter(path: str) -> Findings:
    """Above `info`."""
    return [f["detector"] for f in _printed("trainspotter", ["analyze", path, "--output", "json"])["findings"]
            if f["severity"] != "info"]


def losslint(path: str) -> Findings:
    """Above `info`."""
    words = ["check", path, "--format", "json", "--loss-col", "train_loss", "--eval-loss-col", "eval_loss"]
    return [f["check"] for f in _printed("losslint", words)["findings"] if f["severity"] != "info"]


def gradsnitch(path: str) -> Findings:
    """All."""
    return [f.code or f.name for f in importlib.import_module("gradsnitch").lint_csv(path)]


DOCTORS: dict[str, Callable[[str], Findings]] = {
    f.__name__: f for f in (runmedic, trainproof, trainspotter, losslint, gradsnitch)}


def main() -> None:
    """Ask the doctor that the first argument names."""
    name = sys.argv[1]
    importlib.import_module(name)
    for line in sys.stdin:
        try:
            found = DOCTORS[name](line.rstrip("\n"))
            print(json.dumps({"found": found}), flush=True)
        except Exception as error:  # one log that a package cannot read must not end the rest
            print(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}), flush=True)


if __name__ == "__main__":
    main()
