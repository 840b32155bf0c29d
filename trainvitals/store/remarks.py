"""What people say of a run and its incidents: notes, acknowledgements, mutes. Kept in the run, for all who look at it.

    remarks/20260102T030405.678901Z-1f0c9a7be2d34455.jsonl
    {"time": 1767323045.678901, "who": "ada", "kind": "ack", "incident": "learning-412", ..., "crc32": "..."}

Nothing is changed or taken back: whoever lifts a mute says so in another remark. Each goes whole into a file of its
own, under a name that nobody else uses, so that of two people who speak at once nothing is lost, on a disk or in an
object store, and no half line is ever seen. Remarks are no data: they change no version and have no run judged again.
"""

from __future__ import annotations

import getpass
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from trainvitals.errors import UsageError
from trainvitals.sealed import opened, seal
from trainvitals.store.folder import Folder, open_folder
from trainvitals.untrusted import number, shown

Kind = Literal["note", "ack", "mute", "unmute"]
KINDS: tuple[str, ...] = get_args(Kind)
FOLDER = "remarks"
MOST_TEXT, MOST_WHO, MOST_INCIDENT = 4_000, 80, 200
"""Characters of a note, of a name, and of an incident's id."""
MOST_FILES, MOST_FILE_BYTES, MOST_LINES = 2_000, 64 << 10, 100
"""Files that are read, the newest by name, and what is read of one: ours hold one line of at most 50 kB."""
LAST_SECOND = 253_402_300_800.0
"""Unix seconds at which the year 9999 ends."""
OF_A_RUN = {"frames", "events", "run.json"}


@dataclass(frozen=True, slots=True)
class Remark:
    """What one person said at one moment."""

    time: float
    """Unix seconds by the clock of whoever said it."""
    who: str
    kind: Kind
    incident: str = ""
    """Id of the incident (`checks.triage.identity.Known.id`); "" for the whole run."""
    text: str = ""
    until: float | None = None
    """Of a mute, when it ends, Unix seconds; None where it holds until it is lifted."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of strict JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Remark:
        """What `to_json` gave; texts that are too long are cut. Raises ValueError."""
        kind, until = raw.get("kind"), raw.get("until")
        if kind not in KINDS:
            raise ValueError(f"its kind is {shown(kind)}")
        texts = [raw.get(name, "") for name in ("who", "incident", "text")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("who, incident and text must be texts")
        who, incident, text = (_sound(text)[:most] for text, most
                               in zip(texts, (MOST_WHO, MOST_INCIDENT, MOST_TEXT), strict=True))
        return cls(_moment(raw.get("time"), "time"), who, kind, incident, text,
                   None if until is None else _moment(until, "until"))


@dataclass(frozen=True, slots=True)
class Standing:
    """What people have said of one incident, as it stands at a moment."""

    ack: Remark | None = None
    """The newest acknowledgement."""
    mute: Remark | None = None
    """The mute that is in force, of the incident or of the whole run."""
    notes: tuple[Remark, ...] = ()
    """Oldest first."""


def standing(remarks: Sequence[Remark], incident: str, now: float) -> Standing:
    """What holds for an incident at a time (Unix seconds); for the whole run where `incident` is "".

    A mute holds until its end, or until a later `unmute` of the same incident, or of the run where it muted the run.
    """
    told = sorted((r for r in remarks if r.incident == incident), key=lambda r: r.time)
    acks = [r for r in told if r.kind == "ack"]
    muted = _in_force(told, now)
    if muted is None and incident:
        muted = _in_force(sorted((r for r in remarks if not r.incident), key=lambda r: r.time), now)
    return Standing(acks[-1] if acks else None, muted, tuple(r for r in told if r.kind == "note"))


def _in_force(told: Sequence[Remark], now: float) -> Remark | None:
    switches = [r for r in told if r.kind in ("mute", "unmute")]
    last = switches[-1] if switches else None
    return last if last and last.kind == "mute" and (last.until is None or last.until > now) else None


def say(place: str | os.PathLike[str] | Folder, kind: Kind, incident: str = "", text: str = "", *, who: str = "",
        hours: float | None = None) -> Remark:
    """Store a remark made now, and return it.

    Args:
        place: the run's folder, a path or an fsspec URL.
        kind: "note", "ack", "mute" or "unmute".
        incident: its id; "" speaks of the whole run.
        text: what a note says; may be given with the others.
        who: the name of the person; the user of the operating system where it is "".
        hours: how long a mute lasts; None until it is lifted.

    Raises:
        UsageError: the remark says nothing, is too long, or cannot be stored.
    """
    now = time.time()
    remark = Remark(now, who.strip() or os_user(), kind, incident, text.strip(),
                    None if hours is None else now + hours * 3600)
    add_remark(place, remark)
    return remark


def add_remark(place: str | os.PathLike[str] | Folder, remark: Remark) -> None:
    """Store a remark in a run's folder, whole or not at all.

    Raises:
        UsageError: as `say`.
    """
    if wrong := _objection(remark):
        raise UsageError(wrong)
    folder = open_folder(place)
    at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(remark.time)) + f".{int(remark.time % 1 * 1e6):06d}Z"
    try:
        if not OF_A_RUN & set(folder.entries()):
            raise UsageError(f"{folder} holds no run, so nothing can be said of it. Give the folder of a run.")
        line = json.dumps(seal(remark.to_json())).encode() + b"\n"
        folder.replace(f"{FOLDER}/{at}-{uuid.uuid4().hex[:16]}.jsonl", line)
    except OSError as error:
        raise UsageError(f"What was said could not be stored in {folder}/{FOLDER}: {error}. It needs a place that can "
                         "be written.") from error


def _objection(remark: Remark) -> str:
    """Why a remark cannot be stored; "" where it can."""
    if remark.kind not in KINDS:
        return f"There is no remark of kind {shown(remark.kind)}. There are {', '.join(KINDS)}."
    if not remark.who.strip():
        return "A remark needs the name of who says it."
    if remark.kind == "note" and not remark.text.strip():
        return "A note needs a text."
    if remark.kind == "ack" and not remark.incident:
        return "An acknowledgement needs the id of an incident."
    for what, text, most in (("text", remark.text, MOST_TEXT), ("name", remark.who, MOST_WHO),
                             ("id of an incident", remark.incident, MOST_INCIDENT)):
        if len(text) > most:
            return f"A remark's {what} has at most {most:,} characters, this one {len(text):,}."
    try:
        _moment(remark.time, "time")
        _moment(remark.until or 0.0, "until")
    except ValueError as error:
        return f"A remark needs times that exist: {error}."
    if remark.until is not None and (remark.kind != "mute" or remark.until <= remark.time):
        return "Only a mute has an end, and it ends after it begins."
    return ""


def _moment(value: Any, name: str) -> float:
    """A time that a clock can show. Raises ValueError."""
    moment = number(value, name)
    if not 0 <= moment < LAST_SECOND:
        raise ValueError(f"{name} is {shown(value)}, and a time lies between the years 1970 and 9999")
    return moment


def os_user() -> str:
    """The name of the operating system's user; "unknown" where it has none."""
    try:
        return getpass.getuser()[:MOST_WHO] or "unknown"
    except (OSError, KeyError):  # a container's user without an entry
        return "unknown"


class RemarkFiles:
    """The remarks of a run; a file is read once, as none is ever written again."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._read: dict[tuple[str, int], tuple[list[Remark], str]] = {}
        """Path and size -> what was said, and what is wrong with the file."""
        self._missed: list[str] = []
        self._left_out = 0

    def all(self) -> list[Remark]:
        """Everything that was said, oldest first, as the folder is at this moment. Raises OSError."""
        found = sorted(item for item in self.folder.sizes(FOLDER).items() if item[0].endswith(".jsonl"))
        newest = found[-MOST_FILES:]
        self._left_out = len(found) - len(newest)
        fresh = [path for path, size in newest if (path, size) not in self._read and size <= MOST_FILE_BYTES]
        data = self.folder.read_many(fresh) if fresh else {}
        looked = {key: self._read.get(key) or _remarks(data.get(key[0]), key[1]) for key in newest}
        # What a store did not hand out this time is asked for again.
        self._read = {key: found for key, found in looked.items() if not isinstance(data.get(key[0]), OSError)}
        self._missed = [path for path, answer in data.items() if isinstance(answer, OSError)]
        said = [(remark.time, path, remark) for (path, _), (told, _) in looked.items() for remark in told]
        return [remark for _, _, remark in sorted(said, key=lambda entry: entry[:2])]

    def problems(self) -> list[str]:
        """What the last look could not take in, one sentence for each file."""
        wrong = [f"{path} {why}." for (path, _), (_, why) in self._read.items() if why]
        wrong += [f"{path} could not be read at the last look." for path in self._missed]
        more = f"{FOLDER} holds {self._left_out:,} files more than are read: the oldest remarks are left out."
        return [*wrong, *([more] if self._left_out else [])]


def _remarks(data: bytes | OSError | None, size: int) -> tuple[list[Remark], str]:
    """The remarks of a file, and what is wrong with it."""
    if not isinstance(data, bytes):
        return [], f"is left out: it has {size:,} bytes, more than any remark"
    told: list[Remark] = []
    damaged, unsealed = "", False
    lines = [line for line in data.split(b"\n") if line.strip()]
    for line in lines[:MOST_LINES]:
        try:
            raw, state = opened(line, MOST_FILE_BYTES)
            if state == "broken":
                raise ValueError("it does not match its checksum")
            told.append(Remark.from_json(raw))
            unsealed |= state == "unsealed"
        except ValueError as error:
            damaged = f"holds a line that is no remark ({error})"
    if len(lines) > MOST_LINES:
        damaged = f"holds {len(lines):,} lines, of which {MOST_LINES} are read"
    return told, damaged or ("has no checksum (written by hand): it cannot be verified" if unsealed else "")


def _sound(text: str) -> str:
    """A text that every encoding takes: JSON may hold half characters."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
