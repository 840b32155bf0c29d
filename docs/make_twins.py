"""Draw docs/twins.svg: a loss with a fault that nobody sees, and the same loss with its twin's taken off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from checks.twins.difference import difference
from checks.twins.recognise import recognise
from tests.twins.logs import made, rows_of

PLACE, RISE, ROWS, FROM = 1_500, 0.03, 2_000, 1_000
WIDTH, HEIGHT, LEFT, GAP = 760, 150, 64, 44
INK, FAULT = "#4a86cf", "#dd6b4d"


def main() -> None:
    """Write the picture."""
    steps, losses = made(ROWS, 1)
    losses = losses.copy()
    losses[PLACE:] += RISE
    run, twin = rows_of((steps, losses), "run"), rows_of(made(ROWS, 2), "twin")
    found = difference(run, twin, recognise(run, twin))
    panels = [
        ("loss of the run, nats/token", losses[FROM:]),
        ("the same less its twin's, % of the loss", 100 * (np.exp(found.values) - 1)[FROM:]),
    ]
    parts = [panel(name, values, 24 + i * (HEIGHT + GAP)) for i, (name, values) in enumerate(panels)]
    high = 24 + 2 * (HEIGHT + GAP)
    Path(__file__).with_name("twins.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{high}" fill="#ffffff"/>' + "".join(parts) + "</svg>\n")


def panel(name: str, values: NDArray[np.float64], top: float) -> str:
    """One chart: its title, both ends of its axis, the line, and where the fault began."""
    low, high = float(values.min()), float(values.max())
    x = LEFT + (WIDTH - LEFT - 12) * np.arange(len(values)) / (len(values) - 1)
    y = top + HEIGHT * (high - values) / (high - low)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    at = x[PLACE - FROM]
    words = "".join(f'<text x="{LEFT - 6}" y="{top + 4 + HEIGHT * i}" text-anchor="end" fill="#555">{v:.2f}</text>'
                    for i, v in enumerate((high, low)))
    ends = "".join(f'<text x="{a:.0f}" y="{top + HEIGHT + 16}" text-anchor="{how}" fill="#555">{label}</text>'
                   for a, how, label in ((x[0], "start", f"step {FROM:,}"), (x[-1], "end", f"{ROWS:,}")))
    return (f'<text x="{LEFT}" y="{top - 8}" fill="#1b2430">{name}</text>{words}{ends}'
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + HEIGHT}" stroke="{FAULT}" '
            f'stroke-dasharray="4 3"/>'
            f'<polyline points="{line}" fill="none" stroke="{INK}" stroke-width="1"/>')


if __name__ == "__main__":
    main()
