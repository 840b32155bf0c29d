"""`trainvitals data`: what the model was fed, and what would bring it back to its plan."""

from __future__ import annotations

import json
import math
import sys

import click

from checks.data_report.report import make
from checks.data_report.words import text
from trainvitals.errors import UsageError

MOST_WATCHED = 100


@click.command()
@click.argument("path", type=click.Path())
@click.option("--watch", "words", multiple=True, metavar="WORD", help="Tell how often this word is fed, as in "
              '--watch "def" --watch "∂"; may be repeated.')
@click.option("--over", type=float, metavar="TOKENS", help="Tokens over which the planned mix is to be restored, as "
              "5e9. [a tenth of those fed]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def data(path: str, words: tuple[str, ...], over: float | None, as_json: bool) -> None:
    """Report what the model was fed: drift of tokens, scripts, the tokenizer's fit, and the mix against its plan.

    PATH is a run folder or the log of another tool. What its record does not tell is named, with how to record it.
    Nothing is judged here; `check` does that. The exit code is 3 where nothing at all is known, else 0.

    Example: trainvitals data runs/demo --watch def --over 5e9
    """
    from trainvitals.anything import open_run

    if over is not None and not (math.isfinite(over) and over > 0):
        raise UsageError(f"--over is {over:g}. Give a number of tokens above 0, as 5e9.")
    if blank := [word for word in words if not word.strip()]:
        raise UsageError(f"--watch is {blank[0]!r}. Give a word.")
    if len(words) > MOST_WATCHED:
        raise UsageError(f"{len(words)} words are watched. Give at most {MOST_WATCHED}.")
    report = make(open_run(path), words, over)
    click.echo(json.dumps(report.to_json(), indent=2, allow_nan=False) if as_json else text(report))
    sys.exit(0 if report.rests_on or report.plan else 3)
