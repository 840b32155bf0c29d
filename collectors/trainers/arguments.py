"""What a trainer's callback passes on to `tv.attach`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from collectors.tap import attach
from trainvitals.errors import UsageError


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for a name that `tv.attach` does not take, before a job has begun."""
    known = [n for n in inspect.signature(attach).parameters if n not in ("model", "optimizer", "run")]
    for name in arguments:
        if name not in known:
            raise UsageError(f"tv.attach has no argument {name!r}. It has {', '.join(known)}.")
