"""Messages on their way: each channel has a queue, a thread and its own patience; the queues outlive the process.

A message is kept on the disk before it is sent and taken off after, with the ids of those sent last: news that a
restarted watcher finds a second time is not sent a second time. Only a kill between the service's answer and the note
of it repeats one message.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from checks.watch.channels import Channel, NotTaken
from checks.watch.message import Message
from trainvitals.sealed import opened, seal
from trainvitals.store.folder import LocalFolder

FILE = "outbox.json"
FIRST_WAIT_SECONDS, MOST_WAIT_SECONDS = 5.0, 900.0
"""Before a failed message is tried again; each further failure doubles the wait."""
MOST_QUEUED, MOST_SENT = 1_000, 1_000
"""Messages of one channel that wait (beyond them the oldest is given up, and that is said), and ids of those sent."""


class Post:
    """The queue of one channel. `turn` sends what is due; `start` has a thread do so."""

    def __init__(self, channel: Channel, say: Callable[[str], None]) -> None:
        self.channel = channel
        self.waiting: list[Message] = []
        """What has not been taken, oldest first."""
        self.sent: list[str] = []
        """Ids of the messages that it took last."""
        self.failures = 0
        self.keep: Callable[[], None] = lambda: None
        """Called after each message that was taken."""
        self._say, self._tries = say, 0
        self._next = 0.0
        self._lock, self._news, self._closed = threading.Lock(), threading.Event(), False

    def put(self, message: Message) -> None:
        """Queue a message, unless it was queued or taken before."""
        with self._lock:
            if message.id in self.sent or any(m.id == message.id for m in self.waiting):
                return
            self.waiting.append(message)
            lost = len(self.waiting) > MOST_QUEUED
            if lost:
                del self.waiting[0]
        if lost:
            self._say(f"{self.channel.name}: more than {MOST_QUEUED:,} messages wait, the oldest is given up.")

    def wake(self) -> None:
        """Have the thread look for what is due."""
        self._news.set()

    def turn(self, now: float) -> float:
        """Send what is due at `now` (seconds of any clock that rises); seconds until there is something to do."""
        while True:  # until nothing is due
            with self._lock:
                message = self.waiting[0] if self.waiting else None
            if message is None or self._closed:
                return MOST_WAIT_SECONDS
            if now < self._next:
                return self._next - now
            try:
                self.channel.send(message)
            except NotTaken as error:
                self.failures += 1
                wait = min(FIRST_WAIT_SECONDS * 2.0**self._tries, MOST_WAIT_SECONDS)
                self._tries, self._next = min(self._tries + 1, 30), now + wait
                self._say(f"{self.channel.name} took no message: {error}. It is tried again in {wait:.0f} s.")
                return wait
            self._tries = 0
            with self._lock:
                self.waiting = [m for m in self.waiting if m.id != message.id]
                self.sent = [*self.sent, message.id][-MOST_SENT:]
            self.keep()

    def start(self, clock: Callable[[], float]) -> None:
        """Send from a thread of its own, until `close`."""

        def work() -> None:
            while not self._closed:
                self._news.clear()
                self._news.wait(self.turn(clock()))

        threading.Thread(target=work, name=f"trainvitals-{self.channel.name}", daemon=True).start()

    def close(self) -> None:
        """Send nothing more after the message that is under way."""
        self._closed = True
        self._news.set()


class Outbox:
    """All channels of a watcher, and the file of their queues."""

    def __init__(self, place: Path, channels: Sequence[Channel], say: Callable[[str], None]) -> None:
        self.posts = [Post(channel, say) for channel in channels]
        self._place, self._say, self._lock = place, say, threading.Lock()
        self._others: dict[str, dict[str, list[object]]] = {}
        """Queues of channels that were there before and are not now; they are kept for when they come back."""
        self._read()
        for post in self.posts:
            post.keep = self.write

    def put(self, messages: Sequence[Message]) -> None:
        """Queue messages for every channel, on the disk first, then have them sent."""
        for post in self.posts:
            for message in messages:
                post.put(message)
        if messages:
            self.write()
            for post in self.posts:
                post.wake()

    def write(self) -> None:
        """Store all queues."""
        with self._lock:
            queues = self._others | {p.channel.name: {"waiting": [m.to_json() for m in p.waiting], "sent": p.sent}
                                     for p in self.posts}  # fmt: skip
            try:
                LocalFolder(self._place).replace(FILE, json.dumps(seal({"queues": queues})).encode())
            except OSError as error:
                self._say(f"{self._place / FILE} cannot be written ({error.strerror}): a restart may repeat messages.")

    def _read(self) -> None:
        try:
            raw, told = opened(LocalFolder(self._place).read(FILE))
            if told != "whole":
                raise ValueError("it does not match its checksum")
            queues = dict(raw["queues"])
            for post in self.posts:
                queue = queues.pop(post.channel.name, {"waiting": [], "sent": []})
                post.waiting = [Message.from_json(m) for m in queue["waiting"]]
                post.sent = [str(i) for i in queue["sent"]]
            self._others = queues
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            self._say(f"{self._place / FILE} cannot be read ({error}): messages that waited in it are lost.")
