"""What an importer of results gives: the results, and what the files could not tell."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainvitals.errors import UsageError
from trainvitals.evals import Sheet
from trainvitals.untrusted import parse_json

MOST_JSON, MOST_LINE, MOST_LINES = 1 << 30, 64 << 20, 5_000_000
CLUSTERS = ("subject", "passage_id", "category", "topic", "attack_family", "attack", "cluster")
"""Fields of an item's metadata that items share, the first that there is: their errors are not independent."""
_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Half a character, escaped or as it is: no file or column takes one alone."""
_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter|global_step)[-_=]?0*(\d{1,12})(?!\d)", re.IGNORECASE)


@dataclass
class Found:
    """Results of one file or folder."""

    sheets: list[Sheet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is left out, or not known, a sentence each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user said of the files."""

    step: int | None = None
    checkpoint: str = ""
    task: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Ours -> the file's."""
    lower: bool = False
    """Lower scores are better."""


def step_in(*names: str) -> int | None:
    """The step that a path or a model's name tells; None where none does, or the last part names two."""
    for name in names:
        for part in reversed(re.split(r"[/\\]|__", name or "")):
            steps = {int(n) for n in _STEP.findall(part)}
            if len(steps) == 1:
                return steps.pop()
            if steps:
                return None
    return None


def checkpoint_of(asked: Asked, path: Path, *names: str) -> tuple[str, int | None]:
    """Name and step of the checkpoint that a file is about.

    Raises:
        UsageError: neither the user nor the file says which one.
    """
    step = asked.step if asked.step is not None else step_in(*names, str(path))
    name = asked.checkpoint or (f"step-{step}" if step is not None else next((n for n in names if n), ""))
    if not name:
        raise UsageError(f"{path} does not say which checkpoint it is of. Add --step N, or --checkpoint NAME.")
    return name, step


def file_in(folder: Path, name: str) -> Path | None:
    """A file of a folder whose name comes out of another file; None where there is none, or the name leads away."""
    if not name or "/" in name or "\\" in name:
        return None
    try:
        return folder / name if (folder / name).is_file() else None
    except (OSError, ValueError):
        return None


def parsed(data: bytes, most: int) -> Any:
    """The value of a JSON text, NaN and infinities as they are, half characters replaced. Raises ValueError."""
    value = parse_json(data, most, finite=False)
    return _encodable(value) if _HALF.search(data) else value


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(k): _encodable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_encodable(v) for v in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def json_of(path: Path) -> Any:
    """A JSON file; NaN and infinities as they are. Raises UsageError."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise UsageError(f"{path} has {path.stat().st_size:,} bytes; at most {MOST_JSON:,} are read.")
        return parsed(path.read_bytes(), MOST_JSON)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error


def lines_of(path: Path) -> Iterator[tuple[int, Any]]:
    """The objects of a JSONL file with their line numbers. Raises UsageError at a line that is none but the last."""
    torn: tuple[int, str] | None = None
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), 1):
                if torn is not None:
                    raise UsageError(f"{path}, line {torn[0]:,} is no JSON: {torn[1]}.")
                if number > MOST_LINES:
                    raise UsageError(f"{path} has more than {MOST_LINES:,} lines.")
                if line.strip():
                    try:
                        yield number, parsed(line, MOST_LINE)
                    except ValueError as error:
                        torn = number, str(error)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one of anything else."""
    return value if isinstance(value, dict) else {}


def numeric(value: Any) -> float | None:
    """A number or a truth as a float; None of anything else."""
    return float(value) if isinstance(value, bool | int | float) else None


def counted(keys: Iterable[str]) -> list[str]:
    """Keys made different: the second of two alike gets `#1`. Repeated items are different rows of one text."""
    seen: dict[str, int] = {}
    made = []
    for key in keys:
        n = seen[key] = seen.get(key, -1) + 1
        made.append(key if n == 0 else f"{key}#{n}")
    return made


def item_of(*content: str) -> str:
    """Name of an item by what it asks: equal wherever the same is asked, whatever its place in the files."""
    return hashlib.sha256("\x00".join(content).encode("utf-8", "replace")).hexdigest()[:16]


def cluster_of(metadata: Mapping[str, Any]) -> str | None:
    """What the item shares with others by its metadata; None where that says nothing."""
    return next((str(metadata[c]) for c in CLUSTERS if isinstance(metadata.get(c), str | int)), None)
