"""The demo's own corpus: text that lies wherever Python, torch and transformers are installed.

No network and no file of its own. Five domains that differ in vocabulary, line length and repetition:

    docs    .35   Python's language reference (pydoc), docstrings of the standard library, packages' descriptions
    code    .25   Python source of the standard library, docstrings taken out
    cpp     .15   C++ headers that torch ships
    math    .15   sympy's tests, which are mostly formulas (torch depends on sympy)
    legal   .10   licences and notices of the installed packages, copies dropped

A domain that is missing all the same (a stripped image) is left out, and its share goes to the others.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import random
import sysconfig
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

from collectors.demo.corpus import Corpus
from trainvitals.errors import UsageError

SHARES = {"docs": 0.35, "code": 0.25, "cpp": 0.15, "math": 0.15, "legal": 0.10}
"""Planned share of training tokens per domain."""
MIN_CHARS = 100_000
"""A domain with less text than this is left out."""

NOT_SOURCE = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "encodings", "pydoc_data"}
"""Folders of the standard library that hold no source of it, or tables instead of code."""


def read_installation(seed: int, max_chars: int) -> Corpus:
    """The five domains; which files are taken depends on the seed.

    Raises:
        UsageError: fewer than two domains were found.
    """
    rng = random.Random(seed)
    corpus = Corpus("this Python installation", max_chars)
    docs, code = _docs_and_code(rng)
    sources = {"docs": docs, "code": code, "cpp": _headers(rng), "math": _formulas(rng), "legal": _licences()}
    for domain, texts in sources.items():
        for text in texts:
            corpus.add(domain, text)
            if corpus.full(domain):
                break
    missing = [domain for domain in SHARES if corpus.chars[domain] < min(MIN_CHARS, max_chars)]
    for domain in missing:
        corpus.documents.pop(domain, None)
        corpus.skipped[f"domain {domain} not on this machine"] += 1
    if len(corpus.documents) < 2:
        raise UsageError("This Python installation holds too little text for the demo. Give a folder: --data DIR.")
    total = sum(SHARES[domain] for domain in corpus.documents)
    corpus.shares = {domain: SHARES[domain] / total for domain in corpus.documents}
    return corpus


def _docs_and_code(rng: random.Random) -> tuple[Iterator[str], Iterator[str]]:
    """Texts of the two domains; both walk the standard library, each file is parsed once."""
    parsed: dict[Path, tuple[str, list[str]]] = {}
    paths = _shuffled(rng, Path(sysconfig.get_paths()["stdlib"]), ".py")

    def split(path: Path) -> tuple[str, list[str]]:
        if path not in parsed:
            parsed[path] = split_docstrings(_read(path))
        return parsed[path]

    def docs() -> Iterator[str]:
        yield from _reference()
        yield from _descriptions()
        for path in paths:
            yield from split(path)[1]

    return docs(), (split(path)[0] for path in paths)


def split_docstrings(source: str) -> tuple[str, list[str]]:
    """A module's source without its docstrings, and the docstrings of at least 200 characters."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return "", []
    docstrings: list[str] = []
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                inside.update(range(node.body[0].lineno - 1, node.body[0].end_lineno or 0))
                docstrings += [text] if len(text) >= 200 else []
    lines = source.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines) if number not in inside), docstrings


def _reference() -> Iterator[str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    yield from (topics[name] for name in sorted(topics))


def _descriptions() -> Iterator[str]:
    """README of each installed package, as its metadata carries it."""
    for distribution in _distributions():
        text = distribution.read_text("METADATA") or ""
        yield text.partition("\n\n")[2]


def _headers(rng: random.Random) -> Iterator[str]:
    root = _package_folder("torch")
    yield from (_read(path) for path in _shuffled(rng, root / "include", ".h")) if root else ()


def _formulas(rng: random.Random) -> Iterator[str]:
    root = _package_folder("sympy")
    paths = _shuffled(rng, root, ".py", skip=()) if root else []
    yield from (_read(path) for path in paths if path.parent.name == "tests")


def _licences() -> Iterator[str]:
    """Licence and notice files; a text that was seen before, up to white space, is not repeated."""
    seen: set[bytes] = set()
    for distribution in _distributions():
        for file in distribution.files or ():
            if not any(word in file.name.upper() for word in ("LICENSE", "LICENCE", "NOTICE", "COPYING")):
                continue
            if file.suffix.lower() in ("", ".txt", ".md", ".rst", ".apache", ".bsd"):
                text = _read(Path(str(file.locate())))
                digest = hashlib.sha256(" ".join(text.split()).encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield text


def _distributions() -> list[importlib.metadata.Distribution]:
    return sorted(importlib.metadata.distributions(), key=lambda found: str(found.metadata["Name"]).lower())


def _package_folder(name: str) -> Path | None:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _shuffled(rng: random.Random, root: Path, suffix: str, skip: Collection[str] = NOT_SOURCE) -> list[Path]:
    """Files below `root` in seeded order, so that a cap does not take one package's files only."""
    paths = []
    for here, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in skip]
        paths += [Path(here, name) for name in files if name.endswith(suffix)]
    paths.sort()
    rng.shuffle(paths)
    return paths


def _read(path: Path) -> str:
    """The file's text; empty if it is gone or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
