"""What is known of two runs as twins: whether they are, how their steps line up, and what that rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps of the first run that line up with the second at one offset."""

    first: int
    last: int
    offset: int
    """Step of the second run less step of the first."""
    rows: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs."""

    a: str
    b: str
    twin: bool | None
    """Whether they saw the same data in the same order; None where that is not known."""
    offset_steps: int | None
    """Step of b less step of a for the same data, in the largest piece."""
    evidence: str
    noise_ratio: float | None = None
    """Noise of a's loss over the noise that b leaves of it."""
    pieces: tuple[Piece, ...] = ()
    """Largest first."""
    ratio_a: int = 1
    """Steps of a that are one of the other."""
    ratio_b: int = 1
    copy: bool = False
    """The same numbers: one run twice."""

    @property
    def usable(self) -> bool:
        """Whether one may be held against the other, row by row."""
        return self.twin is True and not self.copy and self.ratio_a == self.ratio_b == 1 and bool(self.pieces)

    def indices(self, steps_a: Steps, steps_b: Steps) -> tuple[Steps, Steps]:
        """Rows of a and of b that were trained on the same data: indices, [n] each. None where batches differ in size.

        Args:
            steps_a: steps of a's rows, rising.
            steps_b: of b's.
        """
        none = np.zeros(0, np.int64)
        if self.ratio_a != 1 or self.ratio_b != 1 or not len(steps_b):
            return none, none
        found = [(none, none)]
        for piece in sorted(self.pieces, key=lambda p: p.first):
            mine = np.flatnonzero((steps_a >= piece.first) & (steps_a <= piece.last))
            wanted = steps_a[mine] + piece.offset
            place = np.minimum(np.searchsorted(steps_b, wanted), len(steps_b) - 1)
            both = steps_b[place] == wanted
            found.append((mine[both], place[both]))
        at, other = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(at, kind="stable")
        return at[order], other[order]

    def turned(self) -> Pair:
        """The same pair, seen from b."""
        pieces = tuple(Piece(p.first + p.offset, p.last + p.offset, -p.offset, p.rows) for p in self.pieces)
        offset = None if self.offset_steps is None else -self.offset_steps
        return Pair(self.b, self.a, self.twin, offset, self.evidence, None, pieces, self.ratio_b, self.ratio_a,
                    self.copy)  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals twins --json` prints it."""
        return {
            "a": self.a, "b": self.b, "twin": self.twin, "offset_steps": self.offset_steps, "evidence": self.evidence,
            "noise_ratio": None if self.noise_ratio is None else round(self.noise_ratio, 2), "copy": self.copy,
            "pieces": [{"first": p.first, "last": p.last, "offset_steps": p.offset, "rows": p.rows}
                       for p in sorted(self.pieces, key=lambda p: p.first)],
        }  # fmt: skip


def numbers(n: int, one: str) -> str:
    """A count with its noun."""
    return f"{n:,} {one}{'' if n == 1 else 's'}"
