"""The watcher: looks at runs as they grow and makes messages of what changed. Every look is told what time it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from checks.watch import progress
from checks.watch.alarms import News, tell
from checks.watch.finding_runs import runs_below
from checks.watch.hours import QuietHours
from checks.watch.looking import judged, muted
from checks.watch.message import Message, clean, digest, write
from checks.watch.state import State, Watched
from trainvitals.errors import TrainVitalsError
from trainvitals.store import Run, open_run
from trainvitals.store.liveness import SILENT_SECONDS

if TYPE_CHECKING:
    from checks.judge import Report

LIST_SECONDS = 30.0
"""Between two searches for runs."""
STILL_SECONDS = 60.0
"""Between two looks at a run that ended in order or was dead before the watch began."""
BUSY_SHARE = 0.04
"""Of one core that judging may take, all runs together; the longest unjudged goes first."""
MOST_CREDIT_SECONDS = 20.0
OWN = ("stall-", "attempt-")
"""Ids of the watcher's own alarms; all others are the judge's."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to watch."""

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quiet: QuietHours | None = None
    board: str = ""
    busy_share: float | None = BUSY_SHARE
    """None judges whatever is new at every look."""


@dataclass(slots=True)
class _Open:
    run: Run
    report: Report | None = None
    looked: float = 0.0
    judged: float = 0.0


class Watcher:
    """Watches the runs at some paths."""

    def __init__(self, paths: Sequence[str], state: State, options: Options, say: Callable[[str], None]) -> None:
        self.state, self.seconds = state, 0.0
        """What is known; how long the last look took."""
        self._paths, self._options, self._say = paths, options, say
        self._runs: list[str] = []
        self._listed = self._looked = 0.0
        self._credit = MOST_CREDIT_SECONDS
        self._open: dict[str, _Open] = {}
        self._unlisted: dict[str, str] = {}

    @property
    def reports(self) -> dict[str, tuple[Run, Report | None]]:
        """What was last seen of each run that is open."""
        return {path: (o.run, o.report) for path, o in self._open.items()}

    def look(self, now: float) -> list[Message]:
        """Look at every run and say what is new. now: Unix seconds."""
        began = time.monotonic()
        if now - self._listed >= LIST_SECONDS or not self._runs:
            self._list(now)
        if self._options.busy_share is not None and self._looked:
            self._credit = min(self._credit + self._options.busy_share * max(now - self._looked, 0.0),
                               MOST_CREDIT_SECONDS)  # fmt: skip
        self._looked = now
        news: list[Message] = []
        for path in sorted(self._runs, key=lambda p: self._open[p].judged if p in self._open else 0.0):
            news += self._look_at(path, now)
        self.seconds = time.monotonic() - began
        return self._through_the_night(news, now)

    def _list(self, now: float) -> None:
        found: dict[str, None] = {}
        for path in self._paths:
            try:
                found |= dict.fromkeys(runs_below(path))
                self._unlisted.pop(path, None)
            except (TrainVitalsError, OSError) as error:
                if self._unlisted.get(path) != str(error):
                    self._say(str(error))
                    self._unlisted[path] = str(error)
                found |= dict.fromkeys(r for r in self._runs if r == path or r.startswith(f"{path.rstrip('/')}/"))
        self._runs, self._listed = list(found), now
        self._open = {path: o for path, o in self._open.items() if path in found}

    def _look_at(self, path: str, now: float) -> list[Message]:
        known = self.state.runs.setdefault(path, Watched())
        opened = self._open.get(path)
        if opened and opened.looked and _at_rest(opened.run, known) and now - opened.looked < STILL_SECONDS:
            return []
        try:
            if opened is None:
                opened = self._open[path] = _Open(open_run(path))
            else:
                opened.run.refresh()
            opened.looked = now
            news = [*self._progress(opened.run, known, now), *self._judged(opened, known, now)]
            known.unread = ""
        # One run that cannot be read must not keep the watch from the others, whatever is wrong with it.
        except Exception as error:  # noqa: BLE001
            words = f"{path} cannot be read ({type(error).__name__}: {error}). The other runs are watched on."
            if known.unread != words:
                self._say(words)
            known.unread = words
            return []
        return self._messages(opened.run, news, known, now)

    def _progress(self, run: Run, known: Watched, now: float) -> list[News]:
        before, known.seen = known.seen, progress.look(known.seen, run, now)
        status = run.status
        ended, known.ended = known.ended, status == "finished"
        own = [t for t in known.told if t.id.startswith(OWN)]
        alarms = []
        if run.imported is None:
            if again := progress.restarted(before, known.seen, ended):
                alarms.append(again)
            if status != "finished" and known.seen.alive and now - known.seen.moved > SILENT_SECONDS:
                alarms += [a for a in [progress.stalled(known.seen, progress.pace(run), status, now)] if a]
        told, news = tell(own, alarms, now)
        known.told = [t for t in known.told if not t.id.startswith(OWN)] + told
        return news

    def _judged(self, opened: _Open, known: Watched, now: float) -> list[News]:
        """News of the judge, where there is something to judge and time for it."""
        version = opened.run.version
        if known.judged == version and opened.report is not None:
            return []
        dead = not known.judged and not known.seen.alive and _at_rest(opened.run, known)
        if self._options.busy_share is not None and (self._credit <= 0 or dead):
            return []
        if known.judged == version and _at_rest(opened.run, known):
            return []
        began = time.thread_time()
        known.known, alarms, opened.report = judged(opened.run, known.known, self._options.settings)
        self._credit -= time.thread_time() - began
        opened.judged = now
        judges = [t for t in known.told if not t.id.startswith(OWN)]
        told, news = tell(judges, alarms, now, first_look=not known.judged)
        known.told = [t for t in known.told if t.id.startswith(OWN)] + told
        known.judged = version
        return news

    def _messages(self, run: Run, news: Sequence[News], known: Watched, now: float) -> list[Message]:
        found = []
        for one in news:
            silenced, acknowledged = muted(run, one.alarm.id, known.known, now)
            # Whoever took an incident on is woken again only by a failure, and told when it is over.
            if silenced or (acknowledged and one.kind == "worse" and one.alarm.level != "fail"):
                continue
            found.append(write(one, run.name, run.path, now, self._options.board))
        return found

    def _through_the_night(self, news: list[Message], now: float) -> list[Message]:
        """What goes out now: in quiet hours failures only, after them what was held back as one message."""
        quiet = self._options.quiet
        if quiet is not None and quiet.holds(now):
            self.state.held += [m for m in news if m.level != "fail"]
            return [m for m in news if m.level == "fail"]
        if not self.state.held:
            return news
        held, self.state.held = self.state.held, []
        return [digest(held, now, f"{len(held)} messages of quiet hours"), *news]


def daily(watcher: Watcher, now: float) -> Message:
    """One message on all runs: level, status, step, and what goes on."""
    lines = []
    for path, (run, report) in sorted(watcher.reports.items()):
        open_ones = [t for t in watcher.state.runs[path].told if t.level and not t.over]
        what = ", ".join(f"{t.level} {t.what} since step {t.step:,}" for t in open_ones[:3]) or "nothing is open"
        level = report.level if report else "not judged"
        lines.append(clean(f"{run.name}: {level}, {run.status}, step {run.last_step or 0:,}; {what}", 200))
    made = digest([], now, f"Daily digest of {len(lines)} runs")
    return replace(made, body="\n".join([*lines[:50], *([f"and {len(lines) - 50} more"] if len(lines) > 50 else [])])
                   or "No runs are watched.")  # fmt: skip


def _at_rest(run: Run, known: Watched) -> bool:
    """Whether a run ended in order, or was dead already when the watch began."""
    return run.status == "finished" or (run.status == "silent" and not known.seen.alive)
