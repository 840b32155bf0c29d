"""Write docs/import.md from the importers: `python docs/make_import.py`. A test fails when it is out of date."""

from __future__ import annotations

import importlib
from pathlib import Path

from collectors.importers.importer import Importer
from collectors.importers.registry import all_importers

PAGE = Path(__file__).with_name("import.md")
TEXT = """\
# Logs of other tools

Made from `collectors/importers/` by `python docs/make_import.py`.

```bash
trainvitals check PATH         # imports what is at PATH, judges it, and says what its format hides
trainvitals dashboard PATH     # opens the board on it, and follows it while it grows
trainvitals import PATH        # only imports, and says what was taken for what
```

`tv.open_run(PATH)` does the same in Python. PATH is a file, a folder that holds one log, or a folder of logs: several
runs are judged one by one, and the exit code is that of the worst. The format is told by what is in the file, and
said; `import --format NAME` names another one.

- **Where it goes.** The run folder lies in `runs/imported/` below the current directory (a private temporary folder
  where that cannot be written), or where `import --run` says; never beside the log. A later look reads only what is
  new. A log that was replaced or cut is imported afresh, and that is said. An import that is killed goes on where its
  rows end.
- **What a number is.** Names that tools share (`train/loss`, `grad_norm`, `lr`, ...) and those of the format become
  signals of the [catalogue](signals.md), in its units; the rest keeps its own name. `import` prints which was taken
  for which. A name that could be two things stays as it is; `--map loss/train=COLUMN` decides, with a unit or a
  factor behind a star: `--map loss/train=bpt*bits`, `--map throughput/step_time=dt*ms`. Of tables, `--map
  step=COLUMN`, `time=` and `run=` name the columns that are no series. What is said once is kept for later looks.
- **Stated, not counted.** A log states a mean, where our own runs store sums and counts. Such a signal is the log's
  number bit by bit, stored as `stated/loss/train` and read as `loss/train`; `Series.signal.stated` tells.
- **Steps.** Rows that stand in the log twice are taken once. Another value for the same step replaces the first. A
  step that goes back begins a branch, whether the log says so or not; what it left stays readable. A log that goes
  back more than 100 times is out of order: then the last value of a step counts. Rows counted in samples or tokens
  keep those numbers as steps; rows counted in epochs, or not at all, are numbered. All of it is said.
- **What is hidden.** Every format has blind spots, and a fault in one of them would not show. A check that would have
  needed it answers `unknown` where it would have said `pass`; an alarm stays an alarm. `telemetry.blind_spots` lists
  them with what to do about each. Beside those of the table, an import finds some in the log itself: rows that are
  sparser than steps, blanks that may be NaN, gradient norms of which nobody says whether they are clipped.
- **Whether it is live.** A log seldom tells that its job ended. A run is live while its log changes, finished where
  the log says so, and else unknown.

A file that is packed is not opened, nothing in a log is ever executed, and damage costs a sentence: what can be read
is, and what could not is named.
"""
HEAD = "| format | what is read | what it hides | command |\n| --- | --- | --- | --- |"


def render() -> str:
    """The page as Markdown."""
    rows = [_row(importer) for importer in sorted(all_importers(), key=lambda i: (i.generic, i.title.lower()))]
    return "\n".join([TEXT, HEAD, *rows, ""])


def _row(importer: Importer) -> str:
    module = importlib.import_module(type(importer).__module__)
    read = (module.__doc__ or "").strip().partition("\n\n")[0]
    hides = " ".join(dict.fromkeys(f"*{spot.kind}*: {spot.says.rstrip('.')}." for spot in importer.blind))
    command = f"`trainvitals import PATH --format {importer.format}`"
    cells = [importer.title, read, hides or "nothing that is known", command]
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(render())
