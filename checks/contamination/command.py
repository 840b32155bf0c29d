"""`trainvitals audit`: the command line of the contamination audit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

MANY = ("--corpus", "--signatures", "--benchmark", "--scores", "--control")
MOST_PROBLEMS = 10
EXIT_CODES = {"pass": 0, "warn": 1, "fail": 2, "unknown": 3}


class ManyValues(click.Command):
    """A command whose `MANY` options take all values up to the next option: `--corpus a b c`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, which is what click understands."""
        return super().parse_args(ctx, _repeated(args))


def _repeated(args: Sequence[str]) -> list[str]:
    spread: list[str] = []
    option = ""
    for position, arg in enumerate(args):
        if arg in MANY:
            option = arg
            if position + 1 == len(args) or args[position + 1].startswith("--"):
                spread.append(arg)
        elif arg.startswith("-") or not option:
            option = ""
            spread.append(arg)
        else:
            spread += [option, arg]
    return spread


@click.command(cls=ManyValues)
@click.option("--corpus", multiple=True, help="Files, globs, folders, URLs or data sets; one or many.")
@click.option(
    "--signatures", multiple=True, help="Parquet files of MinHash signatures of a corpus; evidence is suspect at most."
)
@click.option("--benchmark", multiple=True, required=True, help="Files or data sets with test items; one or many.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the audit.")
@click.option("--scores", multiple=True, help="Per-item scores of the model under review: [MODEL=]FILE.")
@click.option("--control", multiple=True, help="The same of models that never saw this corpus: [MODEL=]FILE.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Processes, or Ray CPUs. [one per core]")
@click.option("--inject", is_flag=True, help="Plant known items in a copy of your own text and report the recall.")
@click.option(
    "--semantic",
    default="tfidf",
    show_default=True,
    help="Finder of paraphrases: tfidf, minilm, a sentence-transformers name or folder, or none.",
)
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="ROLE=COLUMN",
    help="Column of the benchmarks for a role (question, passage, choices, answer, code, id), once for each; dots "
    "reach into objects and lists, numbers from 0 name columns without a header. [guessed]",
)
@click.option("--roles", help="The same in one: question=COL,answer=COL.")
@click.option("--text-column", help="Columns of the corpus to search, parted by commas. [all strings]")
@click.option("--tokenizer", help="tokenizer.json of pre-tokenised shards.")
@click.option("--token-dtype", help="uint16 or uint32, of raw .bin shards. [the smallest that holds the vocabulary]")
@click.option("--eos", help="Token that ends a document in pre-tokenised shards. [guessed]")
@click.option("--seed", default=0, show_default=True, help="Of the planted sample.")
@click.option("--json", "as_json", is_flag=True, help="Print audit.json instead of the summary.")
def audit(
    as_json: bool,
    workers: int | None,
    text_column: str | None,
    mapped: tuple[str, ...],
    roles: str | None,
    **given: Any,
) -> None:
    """Which benchmark items are in a corpus, where, how sure, and what is the score without them?

    Example: trainvitals audit --corpus shards/*.jsonl.gz --benchmark gsm8k_test.jsonl --out audits/gsm8k --inject
    """
    from checks.contamination.audit import run_audit
    from checks.contamination.plan import Request
    from checks.contamination.readers.corpus import CorpusOptions

    tokens: dict[str, Any] = {name: given.pop(name) or "" for name in ("tokenizer", "token_dtype", "eos")}
    columns = tuple(text_column.split(",")) if text_column else ()
    request = Request(
        workers=workers or len(os.sched_getaffinity(0)),
        options=CorpusOptions(text_columns=columns, **tokens),
        roles=",".join(filter(None, (*mapped, roles))) or None,
        **given,
    )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        done = run_audit(request, lambda what, total: _Task(bar, what, total))
    click.echo(json.dumps(done.summary, indent=2, allow_nan=False) if as_json else _told(done.summary, done.folder))
    sys.exit(EXIT_CODES[done.summary["decision"]["level"]])


def _told(summary: Mapping[str, Any], folder: Path) -> str:
    """The audit in a terminal: the decision, each benchmark, what was searched, and what could not be used."""
    from checks.contamination.report.top import recall
    from checks.contamination.score.decision import decide_benchmark

    lines = [f"{summary['decision']['level']:8} {summary['decision']['sentence']}", ""]
    for benchmark in summary["benchmarks"]:
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in benchmark["verdicts"].items())
        lines.append(f"{_plain(benchmark['name'])}: {counts}")
        if len(summary["benchmarks"]) > 1:
            lines.append(f"  {_plain(decide_benchmark(benchmark, summary['corpus']).sentence)}")
    lines += ["", summary["searched"], *map(_plain, summary["corpus"]["left_out"])]
    if inject := summary["inject"]:
        lines.append(inject.get("reason") or f"With --inject, this audit {recall(summary)}.")
    read = [problem for part in (*summary["benchmarks"], summary["corpus"]) for problem in part["problems"]]
    problems = [*summary["score_problems"], *sorted(read, key=lambda problem: not problem["gap"])]
    lines += [f"  ! {_plain(p['source'])}, {_plain(p['place'])}: {_plain(p['what'])}" for p in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"  ! {len(problems) - MOST_PROBLEMS} more in audit.json")
    return "\n".join([*lines, "", f"Report: {folder / 'report.html'}"])


def _plain(text: str) -> str:
    """Without characters that move a terminal's cursor."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class _Task:
    """One bar: hears bytes."""

    def __init__(self, bar: Progress, what: str, total: int) -> None:
        self._bar, self._task = bar, bar.add_task(what, total=total or None)

    def __call__(self, more: int) -> None:
        self._bar.advance(self._task, more)
