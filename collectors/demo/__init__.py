"""The demo: a small mixture of experts that trains on this machine, with one real fault in it."""

from __future__ import annotations

import os

# OpenMP reads this when torch is first imported. Beside one busy process on two cores (the board, a browser), a step
# took 0.78 s with its default, which spins while it waits, and 0.51 s with this; on an idle machine 0.22 s and 0.25 s.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
