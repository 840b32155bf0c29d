"""Who said it: one word for the code and the settings behind a set of findings.

Stored findings are shown again only where this word is the same: a package that was upgraded, or a policy with other
thresholds, would say other sentences of the same run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import checks
import trainvitals
from checks.registry import AREAS

_SHARED = ("formulas.py", "catalogue.py", "schedules.py", "blind.py", "store")
"""What of the package under the checks a finding depends on: how signals are made and read."""


def judged_by(settings: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Digest of the checks' code, and of settings in place of their defaults, as `run_checks` takes them."""
    given = {name: dict(values) for name, values in (settings or {}).items() if values}
    told = json.dumps(given, sort_keys=True, default=str)
    return hashlib.blake2b(f"{_code()} {told}".encode(), digest_size=12).hexdigest()


@cache
def _code() -> str:
    """Digest of the source files; the package's version where they cannot be read (an archive, a frozen program)."""
    own = Path(str(checks.__file__)).parent
    below = Path(str(trainvitals.__file__)).parent
    places = [*own.glob("*.py"), *(own / area for area in (*AREAS, "stream")), *(below / name for name in _SHARED)]
    try:
        digest = hashlib.blake2b(digest_size=16)
        files = sorted(file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place]))
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        if files:
            return digest.hexdigest()
    except OSError:
        pass
    return metadata.version("trainvitals")
