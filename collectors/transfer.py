"""Values go from the device to the host without making either wait for the other.

All values of one step are joined into one float64 tensor (exact for counts up to 2**53), copied on a side stream into
pinned memory, and written once the copy has completed.

On the CPU there is nothing to wait for, and much to gain by waiting: right after a step the caches hold the model, and
an operation on a few numbers takes fifty microseconds in place of five. So rows wait for company, at most two seconds,
as long as the writer waits for its next flush.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger("trainvitals")

DRAIN_SECONDS = 5.0
"""How long the end of a run waits for values that are on their way from the device."""

FIRST_STEPS = 32
"""Steps of which the rows do not wait for company: whoever starts a run looks at it."""
PATIENCE_SECONDS, MOST_ROWS = 2.0, 512
"""How long rows wait on the host, from the first of them, and how many of them."""

Deliver = Callable[[dict[str, Any]], None]
Work = Callable[[], Mapping[str, Any]]
Guard = Callable[..., Any]

ASYNCHRONOUS = ("cuda", "xpu")
"""Device types whose module has streams and events. Any other accelerator is read at once, which may wait for it."""


@dataclass(slots=True)
class _Row:
    owner: object
    """Whom the guard holds to account for what `deliver` raises."""
    deliver: Deliver
    host: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Tensor] = field(default_factory=dict)
    later: Work | None = None
    """Further values, worked out when the row is delivered."""


@dataclass(slots=True)
class _Flight:
    """Rows whose values are on their way."""

    rows: list[_Row]
    copies: list[tuple[Any, Tensor]]
    """For every device: the event of the copy, and the pinned memory that it fills."""

    def landed(self) -> bool:
        return all(event.query() for event, _ in self.copies)


class Transfer:
    """Takes rows of host and device values, and delivers them as host values in the order they came."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._rows: list[_Row] = []
        self._flights: deque[_Flight] = deque()
        self._streams: dict[torch.device, Any] = {}
        self._waiting: deque[_Row] = deque()
        """Rows on the host that wait for company."""
        self._waits_since, self._steps = 0.0, 0

    def add(self, owner: object, values: Mapping[str, Any], deliver: Deliver, later: Work | None = None,
            device: torch.device | None = None) -> None:
        """Hand over one row. Device tensors must not be changed in place afterwards; host tensors may.

        `later` gives further values from what lies on this device and is not changed any more: at once where that
        only queues kernels, and on the host when the row is delivered. A row without an owner, a user's, never waits.
        """
        row = _Row(owner, deliver)
        if later is not None and device is not None and is_asynchronous(device):
            values = {**values, **later()}
        else:
            row.later = later
        for name, value in values.items():
            if not isinstance(value, Tensor):
                row.host[name] = value
            elif is_asynchronous(value.device):
                row.device[name] = value.detach()
            else:
                row.host[name] = host_value(value)
        # A script may log one name twice at one step, and the later value counts.
        if row.device or self._rows or (owner is None and self._flights):
            self._rows.append(row)
        elif owner is None or self._flights:
            self._deliver(row)
        else:
            if not self._waiting:
                self._waits_since = time.monotonic()
            self._waiting.append(row)

    def send(self) -> None:
        """A step ended: start the copies of all rows added since the last call, and deliver what has landed."""
        rows, self._rows = self._rows, []
        self._steps += 1
        # A frame's rows stay in order where some of them come from a device.
        if self._waiting and (rows or self._steps <= FIRST_STEPS or len(self._waiting) > MOST_ROWS or
                              time.monotonic() - self._waits_since >= PATIENCE_SECONDS):
            self.deliver_waiting()
        if rows:
            self._flights.append(self._start(rows))
        self.poll()

    def deliver_waiting(self) -> None:
        """Deliver the rows that wait on the host."""
        while self._waiting:
            self._deliver(self._waiting.popleft())

    def poll(self) -> None:
        """Deliver rows whose copies have completed."""
        while self._flights and self._flights[0].landed():
            self._land(self._flights.popleft())

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Deliver everything, waiting for the copies at most so long. Only for the end of a run, and for a rollback.

        A device that does not answer (a collective that hangs, a kernel without an end) gets no new work; the rows
        that were on their way are given up, and False is returned.
        """
        self.deliver_waiting()
        if not self._settle(seconds):
            return False
        self.send()
        self.deliver_waiting()
        return self._settle(seconds)

    def _settle(self, seconds: float) -> bool:
        """Deliver what is on its way, or give it up when the time is over."""
        deadline = time.monotonic() + seconds
        while self._flights:
            self.poll()
            if self._flights and time.monotonic() >= deadline:
                rows = sum(len(flight.rows) for flight in self._flights) + len(self._rows)
                log.warning("trainvitals: the device did not answer for %g s; %s rows that were on their way from it "
                            "are not in the record.", seconds, f"{rows:,}")
                self._flights.clear()
                self._rows.clear()
                return False
            if self._flights:
                time.sleep(0.001)
        return True

    def _start(self, rows: list[_Row]) -> _Flight:
        by_device: dict[torch.device, list[Tensor]] = {}
        for row in rows:
            for value in row.device.values():
                by_device.setdefault(value.device, []).append(value)
        return _Flight(rows, [self._copy(device, values) for device, values in by_device.items()])

    def _copy(self, device: torch.device, values: list[Tensor]) -> tuple[Any, Tensor]:
        module = torch.get_device_module(device)
        flat = torch.cat([value.to(torch.float64).reshape(-1) for value in values])
        pinned = torch.empty(flat.shape, dtype=torch.float64, pin_memory=True)
        side = self._streams.setdefault(device, module.Stream(device))
        side.wait_stream(module.current_stream(device))
        with module.stream(side):
            pinned.copy_(flat, non_blocking=True)
            flat.record_stream(side)
            done = module.Event()
            done.record(side)
        return done, pinned

    def _land(self, flight: _Flight) -> None:
        memory: dict[torch.device, Tensor] = {}
        offsets: dict[torch.device, int] = {}
        copies = iter(flight.copies)
        for row in flight.rows:
            for name, value in row.device.items():
                if value.device not in memory:
                    memory[value.device], offsets[value.device] = next(copies)[1], 0
                start = offsets[value.device]
                offsets[value.device] = start + value.numel()
                flat = memory[value.device][start:start + value.numel()].view(value.shape)
                row.host[name] = host_value(flat if value.is_floating_point() else flat.to(torch.int64))
            self._deliver(row)

    def _deliver(self, row: _Row) -> None:
        self._guard(row.owner, _finish, row)


def _finish(row: _Row) -> None:
    if row.later is not None:
        for name, value in row.later().items():
            row.host[name] = host_value(value) if isinstance(value, Tensor) else value
    row.deliver(row.host)


def is_asynchronous(device: torch.device) -> bool:
    """Whether work on this device is queued, and done while the host goes on."""
    return device.type in ASYNCHRONOUS


def host_value(value: Tensor) -> float | int | np.ndarray[Any, Any]:
    """A copy of a host tensor: a Python number or an array."""
    if value.dim() == 0:
        return value.item()
    dtype = torch.float64 if value.is_floating_point() else torch.int64
    return value.detach().to("cpu", dtype).numpy().copy()
