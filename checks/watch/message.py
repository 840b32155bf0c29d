"""What a person reads at 3 a.m.: a title, a few sentences, a link. Whatever a run says of itself is made harmless."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from checks.watch.alarms import Alarm, News

MOST_TITLE, MOST_BODY = 180, 900
"""Characters; a phone shows less."""
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")
_MARKS = str.maketrans({"<": "‹", ">": "›", "`": "'", "*": "∗", "[": "(", "]": ")", "|": "¦", "\\": "/",
                        "&": "+", "@": "(at)"})  # fmt: skip
"""Characters that mark HTML, markdown, mentions or links in one channel or another, and what stands in their place."""
_HEAD = {"opened": "{level}", "worse": "WORSE, {level}", "over": "OVER"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message, safe to hand to any channel: of plain characters, the title of one line."""

    id: str
    """The same for the same news, so that a channel that took it is not asked twice."""
    kind: str
    level: str
    run: str
    incident: str
    step: int
    what: str
    title: str
    body: str
    time: float

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> Message:
        """What `to_json` gave. Raises ValueError."""
        try:
            found = cls(**{**raw, "step": int(raw["step"]), "time": float(raw["time"])})
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"a message cannot be read: {error}") from error
        if not all(isinstance(getattr(found, n), str) for n in ("id", "kind", "level", "run", "title", "body")):
            raise ValueError("a message holds something that is no text")
        return found


def clean(text: str, most: int) -> str:
    """A text of unknown origin as one line without marks that a channel may act on, of at most `most` characters."""
    line = " ".join(_UNSEEN.sub(" ", text).translate(_MARKS).replace("://", ":/ /").split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def write(news: News, name: str, path: str, now: float, board: str = "") -> Message:
    """The message for a piece of news on the run called `name`."""
    alarm = news.alarm
    level = alarm.level.upper()
    head = _HEAD[news.kind].format(level=level)
    title = clean(f"{head} · {name} · {alarm.what} · since step {alarm.step:,}", MOST_TITLE)
    said = _sentences(news, alarm)
    body = clean(said, MOST_BODY)
    if board:
        body += f"\n{board.rstrip('/')}/?run={quote(name, safe='')}&incident={quote(alarm.id, safe='')}"
    return Message(f"{path}#{alarm.id}#{news.kind}#{alarm.level}#{'+'.join(alarm.areas)}", news.kind, alarm.level,
                   clean(name, MOST_TITLE), alarm.id, alarm.step, clean(alarm.what, 80), title, body, now)  # fmt: skip


def _sentences(news: News, alarm: Alarm) -> str:
    if news.kind == "over":
        return f"It is over. {alarm.words}"
    past = "" if alarm.ongoing else " It is over already."
    return f"{alarm.words}{past} {alarm.remedy}"


def digest(held: list[Message], now: float, title: str) -> Message:
    """One message in place of several that were held back."""
    lines = [m.title for m in held]
    shown = lines[:20] + ([f"and {len(lines) - 20:,} more"] if len(lines) > 20 else [])
    return Message(f"digest#{now:.0f}", "digest", "warn", "", "", 0, "digest", clean(title, MOST_TITLE),
                   "\n".join(shown) or "Nothing to tell.", now)  # fmt: skip
