"""Any output whose lines name a step and numbers: `step=10 loss=2.3`, `Epoch 1, batch 20/100: loss: 2.3, lr: 1e-4`.

The weakest claim: what a number is, is guessed from its name and said. Importers of a tool's own format go first.
"""

from __future__ import annotations

import re
from pathlib import Path

from collectors.importers._log import Log
from collectors.importers._text import TextImporter, sample
from collectors.importers._tokens import NUMBER, unmarked
from collectors.importers.importer import BlindSpot

_STEP = re.compile(rb"(?i)\b(?:global[ _]?step|train[ _]?step|steps?|iter(?:ation)?s?|update)\b\s*[\"']?\s*[=:#]?"
                   rb"\s*\[?\s*(\d{1,18})(?![\d.eE]*[\w.%])(?:\s*(?:/|of)\s*(\d{1,18}))?")
_EPOCH = re.compile(rb"(?i)\bepochs?\b\s*[=:#]?\s*[\[(]?\s*(\d{1,9})(?![\d.]*\.)(?:\s*(?:/|of)\s*\d{1,9})?")
_BATCH = re.compile(rb"(?i)\b(?:batch|it)(?:es)?\b\s*[=:#]?\s*[\[(]?\s*(\d{1,18})\s*(?:/|of)\s*(\d{1,18})")
_PAIR = re.compile(rb"([A-Za-z_][\w/.\-]{0,60}(?: [A-Za-z_][\w/.\-]{0,40}){0,2})[\"']?\s{0,3}[=:]\s{0,6}[\"']?"
                   rb"(" + NUMBER + rb")(ms|s|%|it/s)?(?![\w.:])")
_NO_METRIC = re.compile(r"(?i)(?:global[ _]?step|steps?|iter(?:ation)?s?|epochs?|batch|eta|rank|pid|line|port|seed|"
                        r"time)")
MOST_PAIRS = 200


class Printed(TextImporter):
    """Output with `key=value` or `key: value`."""

    format = "printed"
    title = "printed key=value lines"
    generic = True
    pattern = _STEP
    blind = (
        BlindSpot("scaled", ("loss/", "grad/", "lr/", "throughput/"), "what the printed numbers are is guessed from "
                  "their names: a mean or a sum, clipped or not, one rank's or all ranks'",
                  "Say it with --map, or log with tap.log."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        if head.lstrip()[:1] in (b"{", b"["):
            return ""
        rows = [found for line in sample(path, head) if (found := _read(line)) is not None]
        names = sorted({name for _, values, _ in rows for name in values})
        if len(rows) < 3 or len(names) > 200:
            return ""
        return f"{len(rows)} lines or more name a step and {', '.join(names[:4])}"

    def line(self, line: bytes, log: Log) -> bool:
        found = _read(line)
        if found is None:
            return False
        step, values, prefix = found
        validates = any(re.match(r"(?i)(?:val|eval|test)", name) for name in values)
        log.row(step, values, prefix, leads=not validates)
        return True


def _read(line: bytes) -> tuple[int, dict[str, bytes | float], bytes] | None:
    """Step, numbers and prefix of a line; None where it lacks a step or a number."""
    if len(line) > 16_384 or not (b"=" in line or b":" in line):
        return None
    found = _STEP.search(line)
    step = int(found[1]) if found else _composed(line)
    if step is None:
        return None
    begin = found.start() if found else 0
    values: dict[str, bytes | float] = {}
    for name, token, unit in _PAIR.findall(unmarked(line))[:MOST_PAIRS]:
        text = name.decode("utf-8", "replace").strip()
        if not _NO_METRIC.fullmatch(text) and token[:1] not in b",":
            values[text + (f"({unit.decode()})" if unit else "")] = token
    return (step, values, line[:begin]) if values else None


def _composed(line: bytes) -> int | None:
    """The step of `epoch 2 batch 20/100`: batches of whole epochs before it, and this one's."""
    epoch, batch = _EPOCH.search(line), _BATCH.search(line)
    if epoch is None or batch is None:
        return None
    return max(int(epoch[1]) - 1, 0) * int(batch[2]) + int(batch[1])
