"""How often each check was wrong where it was measured: `checks/certificates.json`, and what it says in words.

The file is made by `python -m benchmarks.detection certify`. A check that was not measured says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scipy.special import betaincinv

FILE = Path(__file__).with_name("certificates.json")
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Counts of one check."""

    steps: int = 0
    """Healthy steps on which it answered; 0: its false alarms were not measured."""
    runs: int = 0
    """Runs that they come from."""
    fail: int = 0
    warn: int = 0
    """False alarms."""
    found: int = 0
    of: int = 0
    """Faults that are its to find, planted and real; 0: its recall was not measured."""
    delay: float | None = None
    """Median steps from the onset to the first alarm; None where nothing was found."""

    @property
    def words(self) -> str:
        """Both error rates in a sentence."""
        if not self.steps and not self.of:
            return f"{NOT_MEASURED}."
        return f"{self.false_words}; {self.found_words}."

    @property
    def false_words(self) -> str:
        """The false alarms, with their upper 95 % bounds."""
        if not self.steps:
            return f"false alarms {NOT_MEASURED}"
        bounds = " and ".join(f"{1e5 * upper_bound(count, self.steps):.2g}" for count in (self.fail, self.warn))
        return (f"{self.fail} false `fail` and {self.warn} false `warn` in {self.steps:,} healthy steps of {self.runs} "
                f"runs (upper 95 % bounds {bounds} per 100,000)")

    @property
    def found_words(self) -> str:
        """The recall."""
        if not self.of:
            return f"recall {NOT_MEASURED}"
        delay = "" if self.delay is None else f", median delay {self.delay:g} steps"
        return f"{self.found} of {self.of} planted and real faults found{delay}"


def upper_bound(count: int, n: int, confidence: float = 0.95) -> float:
    """Largest rate under which so few of n are not rarer than 1 - confidence: Clopper and Pearson (1934).

    With none of n it is 3 / n, the rule of three.
    """
    return 1.0 if count >= n else float(betaincinv(count + 1, n - count, confidence))


def lower_bound(count: int, n: int, confidence: float = 0.95) -> float:
    """Smallest such rate; 0 where there were none."""
    return 0.0 if count == 0 else float(betaincinv(min(count, n), max(n - count, 0) + 1, 1 - confidence))


@cache
def measured() -> Mapping[str, Any]:
    """The file as it is: `made`, `checks` and `small`; empty where there is none."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def certificate(check: str) -> Certificate:
    """Counts of a check under its shipped thresholds."""
    return Certificate(**measured().get("checks", {}).get(check, {}))


def certificate_words(check: str, settings: Mapping[str, Any] | None = None) -> str:
    """The certificate in a sentence; under other thresholds than the shipped ones it does not hold."""
    return f"{NOT_MEASURED} under the thresholds of this policy." if settings else certificate(check).words
