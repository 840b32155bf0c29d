"""`trainvitals twin`: a small twin for a run, what it costs and what it buys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import numpy as np

from checks.reading import has, scalar
from checks.twins.backtest import LEAST_AFTER, Backtest, backtest
from checks.twins.judge import SETTLED_ROWS, SETTLED_STEPS
from checks.twins.known import known_twins, own_rows
from checks.twins.pair import numbers
from checks.twins.proxy import Proxy, proxies
from trainvitals.anything import open_run

if TYPE_CHECKING:
    from trainvitals.store import Run

TOKENS = ("throughput/tokens", "loss/tokens")
SUGGESTED = 12
"""Part of the size that found most of what larger proxies find, in the benchmark of docs/twins.md."""


@click.command()
@click.option("--of", "path", required=True, metavar="RUN", help="The run that the twin is for.")
@click.option("--json", "as_json", is_flag=True, help="Print sizes and backtest as JSON.")
def twin(path: str, as_json: bool) -> None:
    """How to train a small twin of a run, what its size costs, and what it buys.

    A proxy is a model of a fraction of the size that sees the same batches in the same order, trained before the run
    or beside it. Where twins of the run are known, rises are planted into the run's own rows, and it is said how soon
    they are found with the twins and without.

    Example: trainvitals twin --of runs/demo
    """
    run = open_run(path)
    tokens = _tokens(run)
    sizes = proxies(run.card, tokens)
    twins = known_twins(run)
    bought = backtest(own_rows(run), twins)
    known = [{"path": rows.name, "noise_ratio": pair.noise_ratio} for rows, pair in twins if pair.usable]
    if as_json:
        click.echo(json.dumps({"run": run.path, "params": run.card.params_total, "tokens": tokens, "twins": known,
                               "proxies": [size.to_json() for size in sizes],
                               "backtest": [row.to_json() for row in bought]}, indent=2, allow_nan=False))  # fmt: skip
        return
    click.echo(_cost(run, sizes, tokens))
    click.echo(_how(run, next(size for size in sizes if size.part == SUGGESTED)))
    click.echo(_bought(run, bought, len(known)))


def _tokens(run: Run) -> float | None:
    """Tokens of the whole run, planned or so far, by the mean of the steps that it recorded."""
    rows = next((scalar(run, name) for name in TOKENS if has(run, name)), None)
    steps = run.card.total_steps or run.last_step
    if rows is None or not len(rows.steps) or not steps:
        return None
    return float(np.nansum(rows.values)) / int(rows.steps[-1]) * steps


def _cost(run: Run, sizes: list[Proxy], tokens: float | None) -> str:
    on = "" if tokens is None else f" on {tokens:,.3g} tokens"
    lines = [f"{run.path}: {run.card.params_total:,} parameters{on}", "",
             f"{'proxy':7}{'parameters':>14}{'width and depth':>17}{'layers':>8}{'of the FLOP':>13}{'FLOP':>11}"]
    for size in sizes:
        scale = "unknown" if size.scale is None else f"x {size.scale:.2f}"
        flops = "unknown" if size.flops is None else f"{size.flops:.2g}"
        lines.append(f"{f'1/{size.part}':7}{size.params:>14,}{scale:>17}{size.layers or 'unknown':>8}"
                     f"{size.flops_share:>13.1%}{flops:>11}")
    return "\n".join(lines)


def _how(run: Run, size: Proxy) -> str:
    return f"""
Train it on the same batches in the same order: the same loader, seed and batch size, another model. Before the run, so
that every step of the run has its twin, or beside it.

    model = ...                                         # about {size.params:,} parameters
    tap = tv.attach(model, optimizer, run="{run.path}-proxy")
    # the loop of {run.path}, as it is

    trainvitals twins {run.path} {run.path}-proxy       # finds and notes the pair; then `check` and the board use it
"""


def _bought(run: Run, rows: list[Backtest], twins: int) -> str:
    if not twins:
        return ("What it buys on this run can be measured once a twin is known. What it bought on the demo's model is "
                "in docs/twins.md.")
    if not rows:
        return (f"{numbers(twins, 'twin')} of this run {'is' if twins == 1 else 'are'} known; too few rows are shared "
                f"to measure what that buys: {2 * SETTLED_ROWS + LEAST_AFTER}, to beyond step {SETTLED_STEPS}, would "
                "do.")
    buy = "buys" if twins == 1 else "buy"
    lines = [f"What {numbers(twins, 'known twin')} of this run {buy}: rises planted at "
             f"{rows[0].places} places of its own rows", "",
             f"{'rise':>10}{'found':>12}{'after':>14}{'found alone':>14}{'after':>14}"]
    for row in rows:
        lines.append(f"{f'{row.rise_nat} nat':>10}{f'{row.found} of {row.places}':>12}{_rows(row.delay_rows):>14}"
                     f"{f'{row.found_alone} of {row.places}':>14}{_rows(row.delay_rows_alone):>14}")
    return "\n".join(lines)


def _rows(delay: float | None) -> str:
    return "mostly never" if delay is None else f"{delay:,.0f} rows"
