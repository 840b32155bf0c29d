"""How the board shows the four levels of a verdict: always a word and an icon beside the colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Level:
    """One level; `hue` is a chart colour that reads on light and on dark."""

    word: str
    icon: str
    color: Literal["red", "orange", "green", "gray"]
    hue: str
    rank: int


LEVELS = {
    "fail": Level("fail", ":material/error:", "red", "#d8504d", 0),
    "warn": Level("warn", ":material/warning:", "orange", "#d68a2e", 1),
    "unknown": Level("unknown", ":material/help:", "gray", "#8592a3", 2),
    "pass": Level("pass", ":material/check_circle:", "green", "#3d9a70", 3),
}

STATUS = {
    "live": (":material/sensors:", "green"),
    "finished": (":material/flag:", "blue"),
    "silent": (":material/sensors_off:", "red"),
    "unknown": (":material/help:", "gray"),
}


def level_of(name: str) -> Level:
    """The level of this name; a name that is none counts as unknown."""
    return LEVELS.get(name, LEVELS["unknown"])
