"""A run as it was when its last row was `step`: what a judge could know then."""

from __future__ import annotations

from typing import Any

from trainvitals.store import Run


class Until:
    """Delegates to the run, and leaves out what came later."""

    def __init__(self, run: Run, step: int) -> None:
        self._run, self._step = run, step
        self.last_step = min(step, run.last_step if run.last_step is not None else step)
        self.version = f"{run.version} until {step}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def array(self, name: str, *, steps: tuple[int, int] | None = None, **rest: Any) -> Any:
        """As `Run.array`."""
        return self._run.array(name, steps=self._until(steps), **rest)

    def series(self, name: str, *, steps: tuple[int, int] | None = None, **rest: Any) -> Any:
        """As `Run.series`."""
        return self._run.series(name, steps=self._until(steps), **rest)

    def kept(self, name: str, most: int) -> bytes:
        """Nothing: what a judge stored beside the run, it stored when it had seen all of it."""
        return b""

    def keep(self, name: str, data: bytes) -> None:
        """Nothing is stored beside the whole run."""

    def has(self, name: str) -> bool:
        """Whether there was a row by then."""
        return bool(self._run.has(name)) and len(self.array(name).steps) > 0

    def events(self) -> Any:
        """Those that had happened."""
        events = self._run.events()
        return events[events["step"].isna() | (events["step"] <= self._step)]

    def _until(self, steps: tuple[int, int] | None) -> tuple[int, int]:
        first, last = steps or (-(2**60), self._step)
        return first, min(last, self._step)
