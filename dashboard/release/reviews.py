"""Release reviews as the board reads them: found on the disk, checked, never judged anew by rules of its own.

A review is the folder that `trainvitals review RUN --out DIR` wrote. It belongs to a run where it lies inside of the
run's folder, or where its decision names a run of that name; the best place is RUN/reviews/NAME.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from checks.review.decide import EXIT_CODES
from checks.review.row import Row
from checks.review.signing import read_trusted
from checks.review.verify import Verified, verify
from trainvitals.errors import RunDamaged, TrainVitalsError
from trainvitals.untrusted import misfit, parse_json

DECISION = "decision.json"
DEPTH, MOST_FOLDERS, MOST_FILES, MOST_BYTES = 4, 2_000, 20_000, 16 << 20
NOT_REVIEWS = {"frames", "events", "evals", "audits", "findings", "samples", "forecasts"}
LOOK_SECONDS, KEEP_SECONDS = 5.0, 60.0
VERDICTS = ("pass", "warn", "fail", "unknown", "waived")
_MAYBE = (int, float, type(None))
_ROW = {
    "name": str, "kind": str, "verdict": str, "sentence": str, "n": int, "clusters": int, "statistic": str,
    **dict.fromkeys(("value", "low", "high", "threshold", "p", "p_holm"), _MAYBE), "se_kind": str, "source": str,
    "masked": [str], "change": str,
}  # fmt: skip
_RECORD = {
    "decision": str, "reasons": [str], "rows": [_ROW], "what_would_change_it": [str], "created": str, "tool": str,
    "run": (str, type(None)), "candidate": (str, type(None)), "baseline": (str, type(None)),
    "steps": ([(int, type(None))], type(None)), "problems": [str], "needed_signers": int,
    "waivers": [{"row": str, "reason": str, "owner": str, "approver": str, "expires": str}],
    "last": ({"decision": (str, type(None)), "changed": [str], "added": [str], "gone": [str]}, type(None)),
}  # fmt: skip
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Review:
    """One review as its folder says."""

    path: str
    record: Mapping[str, Any]
    """decision.json."""
    rows: tuple[Row, ...]

    @property
    def decision(self) -> str:
        """GO, NO-GO or UNDECIDED."""
        return str(self.record["decision"])


@st.cache_data(ttl=LOOK_SECONDS, max_entries=32, show_spinner=False)
def reviews_of(run: str, folder: str) -> dict[str, str]:
    """Name -> path of the reviews of a run: those in its folder, and those below `folder` that name it; newest first.

    A damaged one inside of the run is listed too, so that the page can say what is wrong with it.
    """
    if "://" in run:
        return {}
    own = [(f"{_name(run)}/{name}" if name else _name(run), path) for name, path in _below(run)]
    inside = {path for _, path in own}
    # The board's folder, and what the run lies in where that is not below it.
    beside = [(name or _name(folder), path) for name, path in ([] if "://" in folder else _below(folder))
              if path not in inside and _run_of(path) == _name(run)]  # fmt: skip
    found = sorted([*own, *beside], key=lambda entry: -_made(entry[1]))
    return {text: path for text, path in found}


def open_review(path: str) -> Review:
    """The review in a folder.

    Raises:
        RunDamaged: decision.json is missing, or is not what this version writes.
    """
    return _opened(path, _stamp(path))


@st.cache_resource(ttl=KEEP_SECONDS, max_entries=16, show_spinner=False)
def _opened(path: str, stamp: object) -> Review:
    try:
        record = parse_json(_bytes(path, DECISION), MOST_BYTES)
        wrong = misfit(record, _RECORD)
        if not wrong and record["decision"] not in EXIT_CODES:
            wrong = "its decision is none of " + ", ".join(EXIT_CODES)
        if not wrong and any(row["verdict"] not in VERDICTS for row in record["rows"]):
            wrong = "a row has a verdict that there is not"
        if wrong:
            raise RunDamaged(f"{path}/{DECISION} is not as `trainvitals review` writes it: {wrong}. Review again.")
        return Review(path, record, tuple(Row.from_json(row) for row in record["rows"]))
    except (OSError, ValueError, TypeError) as error:
        raise RunDamaged(f"{path}/{DECISION} cannot be read ({error}). Review again.") from error


def verified(path: str, keys: tuple[str, ...]) -> Verified | str:
    """What `trainvitals review --verify` says with these public keys in PEM; a sentence where it cannot say anything.

    The evidence is judged again, which takes seconds; the answer is kept while no file changes.
    """
    return _verified(path, keys, _stamp(path), dt.datetime.now(dt.UTC).date())


@st.cache_resource(ttl=10 * KEEP_SECONDS, max_entries=32, show_spinner="Verifying: the evidence is judged again")
def _verified(path: str, keys: tuple[str, ...], stamp: object, today: dt.date) -> Verified | str:
    try:
        with tempfile.TemporaryDirectory() as name:
            for i, key in enumerate(keys):
                Path(name, f"{i}.pem").write_text(key, encoding="utf-8")
            trusted = read_trusted(tuple(sorted(Path(name).glob("*.pem"))))
        return verify(Path(path), trusted, None, today)
    except TrainVitalsError as error:
        return str(error)
    except Exception:  # evidence that nobody foresaw must not look like a review that holds
        log.exception("The review %s could not be verified", path)
        return "This review could not be verified: a file of it is damaged. The server's log has the details."


def file_of(path: str, name: str) -> bytes | None:
    """A file of a review as it lies there; None where there is none."""
    try:
        return _bytes(path, name)
    except OSError:
        return None


def _bytes(path: str, name: str) -> bytes:
    place = f"{path}/{name}"
    # A pipe or a device would be waited for without an end.
    if not stat.S_ISREG(os.stat(place, follow_symlinks=False).st_mode):
        raise OSError("no regular file")
    with open(place, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"more than {MOST_BYTES >> 20} MB")
    return data


def _stamp(path: str) -> tuple[tuple[str, int, int, int], ...]:
    """Changes when any file of a review does."""
    found: list[tuple[str, int, int, int]] = []
    for parent, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            try:
                told = os.stat(f"{parent}/{name}", follow_symlinks=False)
            except OSError:
                continue
            if len(found) > MOST_FILES:
                return tuple(found)  # verification refuses a folder of so many
            found.append((f"{parent}/{name}", told.st_mtime_ns, told.st_size, told.st_ctime_ns))
    return tuple(found)


def _below(folder: str) -> Iterator[tuple[str, str]]:
    """Name and path of every review in a folder or below it."""
    pending, looked = [(folder.rstrip("/"), "")], 0
    while pending and looked < MOST_FOLDERS:
        path, name = pending.pop(0)
        looked += 1
        try:
            with os.scandir(path) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        if any(entry.name == DECISION for entry in inside):
            yield name, path
        elif name.count("/") < DEPTH - 1:
            pending += [(f"{path}/{entry.name}", f"{name}/{entry.name}" if name else entry.name) for entry in inside
                        if entry.name not in NOT_REVIEWS and not entry.name.startswith(".")
                        and entry.is_dir(follow_symlinks=False)]  # fmt: skip


def _run_of(path: str) -> str:
    try:
        return str(open_review(path).record["run"])
    except RunDamaged:
        return ""


def _made(path: str) -> float:
    try:
        return os.stat(f"{path}/{DECISION}", follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
