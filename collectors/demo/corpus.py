"""Real text for the demo, by domain: from this Python installation, a folder, or a `datasets` dataset.

The built-in corpus needs no network and no file of its own. Its five domains exist wherever torch and transformers are
installed (sympy comes with torch), and differ in vocabulary, line length and repetition:

    docs    .35   Python's language reference (pydoc), docstrings of the standard library, packages' long descriptions
    code    .25   Python source of the standard library, docstrings taken out
    cpp     .15   C++ headers shipped with torch
    math    .15   sympy's tests: formulas, mostly
    legal   .10   licences and notices of the installed packages, copies dropped

A domain that is missing all the same (a stripped image) is left out and its share goes to the others.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainvitals.card import UNATTRIBUTED
from trainvitals.errors import UsageError

SHARES = {"docs": 0.35, "code": 0.25, "cpp": 0.15, "math": 0.15, "legal": 0.10}
"""Planned share of tokens of the built-in domains."""
MAX_CHARS_PER_DOMAIN = 2_000_000
"""About 0.5 M tokens: more than a default run draws from any one domain, and start-up stays within seconds."""
MAX_CHARS_PER_DOCUMENT = 8_000
"""Longer texts are cut at line ends, so that even a domain of one file has documents to hold out."""
MAX_DOMAINS = 64
MAX_RECORDS = 200_000
"""Records read from a dataset whose domains do not fill up."""


@dataclass(slots=True)
class Corpus:
    """Documents per domain, in the order of the domain ids."""

    source: str
    """Where the text comes from, for people."""
    documents: dict[str, list[str]] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    """Planned share of training tokens per domain; they add up to 1."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files or records that were left out, by reason."""

    def add(self, domain: str, text: str) -> bool:
        """Add a text to a domain, cut into documents; False once the domain is full."""
        documents = self.documents.setdefault(domain, [])
        space = MAX_CHARS_PER_DOMAIN - sum(map(len, documents[-1:])) - MAX_CHARS_PER_DOCUMENT * max(len(documents) - 1, 0)
        return space > 0
