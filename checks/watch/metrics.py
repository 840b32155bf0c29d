"""What Prometheus scrapes: levels, onsets and the newest numbers of every run, and how the watcher itself does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainvitals.errors import TrainVitalsError, UsageError

if TYPE_CHECKING:
    from checks.watch.outbox import Outbox
    from checks.watch.watcher import Watcher
    from trainvitals.store import Run

LEVELS = {"unknown": -1, "pass": 0, "warn": 1, "fail": 2}
NEWEST = {"loss": ("loss/train", "loss/returned"), "tokens_per_second": ("throughput/tokens_per_s",)}
"""Gauge -> the signals it may come from, the first that the run has."""
GAUGES = {
    "trainvitals_level": ("Verdict of an area: -1 unknown, 0 pass, 1 warn, 2 fail.", ("run", "area")),
    "trainvitals_incident_onset_step": ("Step at which an open incident began.", ("run", "incident", "level")),
    "trainvitals_last_step": ("Newest step.", ("run",)),
    "trainvitals_loss": ("Newest training loss, nats per token.", ("run",)),
    "trainvitals_tokens_per_second": ("Newest rate, all ranks.", ("run",)),
    "trainvitals_seconds_since_step": ("Seconds since the watcher saw the step change.", ("run",)),
    "trainvitals_watch_look_seconds": ("How long the last look at all runs took.", ()),
    "trainvitals_watch_send_failures": ("Sends that failed since the watcher began.", ("channel",)),
    "trainvitals_watch_messages_waiting": ("Messages that a channel has not taken.", ("channel",)),
}
"""Name -> what it says, and its labels."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of one gauge."""

    gauge: str
    labels: tuple[str, ...]
    value: float


def samples(watcher: Watcher, outbox: Outbox, now: float) -> list[Sample]:
    """Everything that is scraped, as of the last look."""
    found = [Sample("trainvitals_watch_look_seconds", (), watcher.seconds)]
    for post in outbox.posts:
        name = (post.channel.name,)
        found.append(Sample("trainvitals_watch_send_failures", name, post.failures))
        found.append(Sample("trainvitals_watch_messages_waiting", name, len(post.waiting)))
    for path, (run, report) in watcher.reports.items():
        known = watcher.state.runs[path]
        for area, verdict in (report.verdicts if report else {}).items():
            found.append(Sample("trainvitals_level", (path, area), LEVELS[verdict.level]))
        found += [Sample("trainvitals_incident_onset_step", (path, t.id, t.level), t.step)
                  for t in known.told if t.level and not t.over]  # fmt: skip
        if run.last_step is not None:
            found.append(Sample("trainvitals_last_step", (path,), run.last_step))
        if run.status != "finished" and known.seen.alive:
            found.append(Sample("trainvitals_seconds_since_step", (path,), max(now - known.seen.moved, 0.0)))
        for gauge, names in NEWEST.items():
            if (value := _newest(run, names)) is not None:
                found.append(Sample(f"trainvitals_{gauge}", (path,), value))
    return found


def _newest(run: Run, names: Sequence[str]) -> float | None:
    last = run.last_step
    for name in names:
        if last is None or not run.has(name):
            continue
        try:
            values = run.array(name, steps=(max(last - 50, 0), last)).values
        except (TrainVitalsError, OSError, ValueError):
            return None
        return float(values[-1]) if values.ndim == 1 and len(values) else None
    return None


class Scraped:
    """The newest samples, in the form that prometheus_client collects. A scrape never touches a run."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def collect(self) -> Iterator[Any]:
        """Every gauge, those without a sample too."""
        from prometheus_client.core import GaugeMetricFamily

        taken = self.samples
        for name, (words, labels) in GAUGES.items():
            family = GaugeMetricFamily(name, words, labels=labels)
            for sample in taken:
                if sample.gauge == name:
                    family.add_metric(sample.labels, sample.value)
            yield family


def serve(scraped: Scraped, where: str) -> int:
    """Answer scrapes at `[HOST:]PORT`, on this machine only where no host is named; the port. Raises UsageError."""
    host, _, digits = where.rpartition(":")
    if not digits.isdecimal() or not 0 <= int(digits) < 65536:
        raise UsageError(f"--metrics is {where[:40]!r}. Give PORT or HOST:PORT.")
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise UsageError("--metrics needs prometheus-client. Install `trainvitals[watch]`.") from error
    registry = CollectorRegistry()
    registry.register(scraped)
    try:
        server, _ = start_http_server(int(digits), host.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        raise UsageError(f"--metrics {where}: {error.strerror}. Choose another port or host.") from error
    return int(server.server_port)
