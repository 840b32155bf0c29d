"""Write docs/signals.md from the catalogue: `python docs/make_signals.py`. A test fails when it is out of date."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from trainvitals.catalogue import FIELDS, SIGNALS

PAGE = Path(__file__).with_name("signals.md")
RULE = "| --- | --- | --- | --- | --- |"
MERGES = {"sum": "added", "same": "identical", "max": "largest", "min": "smallest"}


def render() -> str:
    """The page as Markdown."""
    lines = [
        "# Signals",
        "",
        "Made from `trainvitals/catalogue.py` by `python docs/make_signals.py`.",
        "",
        "A *signal* is what you read: `run.series(\"loss/train\")`. It is computed from *fields*, the sums, counts and "
        "extremes that each rank stores; *over ranks* says how one step's values of several ranks become one. Fields "
        "can be read by name as well.",
    ]
    for frame, fields in groupby(FIELDS.values(), key=lambda field: field.frame):
        lines += ["", f"## `{frame}`", "", "| signal | unit | axes | meaning | from |", RULE]
        for s in (s for s in SIGNALS.values() if s.frame == frame):
            reads = ", ".join(f"`{name}`" for name in s.reads)
            lines.append(f"| `{s.name}` | {s.unit} | {' x '.join(s.axes)} | {s.meaning} | {reads} |")
        lines += ["", "| field | unit | axes | meaning | over ranks |", RULE]
        lines += [f"| `{f.name}` | {f.unit} | {' x '.join(f.axes)} | {f.meaning} | {MERGES[f.merge]} |" for f in fields]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
