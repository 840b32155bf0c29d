"""Which files below a path are results, and what reads each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from collectors.importers.evals import every_eval, helm, inspect_log, lighteval, lm_eval, nemo, rows
from collectors.importers.evals.found import Asked, Found
from trainvitals.errors import UsageError

Reader = Callable[[Path, Asked], Found]
MOST_FILES = 200_000
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".gz")


@dataclass(frozen=True, slots=True)
class Format:
    """A format and what reads it."""

    name: str
    matches: Callable[[Path], bool]
    read: Reader


FORMATS = (
    Format("NeMo Evaluator", nemo.is_bundle, nemo.read),
    Format("Every Eval Ever", every_eval.is_log, every_eval.read),
    Format("lighteval", lighteval.is_results, lighteval.read),
    Format("HELM", helm.is_run, helm.read),
    Format("lm-evaluation-harness", lm_eval.is_results, lm_eval.read),
    Format("Inspect", inspect_log.is_log, inspect_log.read),
    Format("OpenAI evals", rows.is_events, rows.read_events),
    Format("table of items", lambda path: path.suffix in TABLES, rows.read_table),
)


def results_at(path: Path, asked: Asked) -> Iterator[tuple[Path, Format, Found | UsageError]]:
    """Every result file at a path, oldest first, with what it holds or why it cannot be read.

    Raises:
        UsageError: nothing is there, or nothing that is a result.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist. Name the file or folder that the harness wrote.")
    files = [path] if path.is_file() else sorted(_below(path), key=lambda p: (p.name.split("_")[-1], str(p)))
    taken = 0
    for file in files:
        format_ = next((f for f in FORMATS if f.matches(file)), None)
        # A sample file belongs to its results; other files of a folder are not asked for their columns.
        if format_ is None or path.is_dir() and format_.name == "table of items" and not asked.columns:
            continue
        taken += 1
        try:
            yield file, format_, format_.read(file, asked)
        except UsageError as error:
            yield file, format_, error
    if not taken:
        raise UsageError(f"{path} holds no results of {', '.join(f.name for f in FORMATS)}. A table needs to be named "
                         "itself, or with --columns item=NAME,score=NAME.")  # fmt: skip


def _below(folder: Path) -> Iterator[Path]:
    for number, file in enumerate(folder.rglob("*")):
        if number > MOST_FILES:
            raise UsageError(f"{folder} holds more than {MOST_FILES:,} files. Name a folder below it.")
        part = file.name in helm.BESIDE and file.with_name("run_spec.json").exists()
        if file.is_file() and not part and not file.name.startswith((".", "samples_")):
            yield file
