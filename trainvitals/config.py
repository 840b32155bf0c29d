"""A job's settings as the run card holds them: plain, bounded, and without what looks like a secret."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import islice
from types import SimpleNamespace
from typing import Any

from trainvitals.errors import UsageError
from trainvitals.store.eventlog import cut, plain

ENTRIES, LEVELS = 5_000, 10
"""Settings that are kept, and levels of nesting."""
KEY_CHARACTERS, VALUE_CHARACTERS, ALL_CHARACTERS = 200, 1_000, 200_000
HIDDEN = "<hidden>"
"""Stands for a value that looks like a secret."""

SECRET_WORDS = frozenset("""
    password passwords passwd passphrase pwd secret secrets credential credentials apikey authorization cookie cookies
""".split())
SECRET_PAIRS = frozenset({("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"), ("ssh", "key"),
                          ("encryption", "key"), ("auth", "key"), ("account", "key"), ("service", "key")})
TOKEN_OWNERS = frozenset("""
    access api app auth bearer bot csrf discord gh git github gitlab hf hub huggingface id jwt login oauth personal
    refresh secret security session slack wandb webhook
""".split())
"""Words before "token" that make it one for logging in. Language models have others: `pad_token`, `max_tokens`."""
SECRET_VALUES = re.compile(
    r"hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|A[KS]IA[0-9A-Z]{16}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.|^[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@")
"""What Hugging Face, OpenAI, GitHub, GitLab, AWS, Slack and Google give out, private keys, JSON web tokens, and
addresses with a password."""
LOOKS_RANDOM = re.compile(r"(?=.*\d)[A-Za-z0-9_\-.=+/]{16,}")


def plain_config(config: Any) -> tuple[dict[str, Any], list[str]]:
    """Settings as JSON holds them, and the paths of those that were hidden.

    Args:
        config: a mapping (OmegaConf's too), `argparse.Namespace`, dataclass, pydantic model, an object with `to_dict`,
            or a class or object with attributes; nested in any way. None is no settings.

    Raises:
        UsageError: it is none of these.
    """
    if config is None:
        return {}, []
    members = _members(config)
    if members is None and hasattr(config, "__dict__"):
        members = _public(config)
    if members is None:
        raise UsageError(f"config must be a mapping of settings (or a Namespace, dataclass, model or object with "
                         f"attributes), not {type(config).__name__}.")
    walk = _Walk()
    return walk.mapping(members, "", LEVELS, ()), walk.hidden


def joined(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings with others added, within the bounds of one card; of the same name, the later ones count."""
    return plain_config({**earlier, **later})[0]


class _Walk:
    """One walk through settings, within one budget."""

    def __init__(self) -> None:
        self.hidden: list[str] = []
        self._entries, self._characters = ENTRIES, ALL_CHARACTERS

    def mapping(self, items: Mapping[Any, Any], path: str, levels: int, above: tuple[int, ...]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in _readable(items):
            if self._entries <= 0 or self._characters <= 0:
                kept["…"] = "cut: a card holds no more settings"
                break
            key = cut(str(name), KEY_CHARACTERS)
            self._spend(key)
            at = f"{path}.{key}" if path else key
            if is_secret(key, value):
                self.hidden.append(at)
                kept[key] = HIDDEN
            else:
                kept[key] = self._value(value, at, levels - 1, above)
        return kept

    def _value(self, value: Any, path: str, levels: int, above: tuple[int, ...]) -> Any:
        self._entries -= 1
        members = _members(value)
        nested = members is not None or (isinstance(value, Sequence | set | frozenset)
                                         and not isinstance(value, str | bytes | bytearray))
        if nested and (levels <= 0 or id(value) in above):
            return "<nested in itself>" if id(value) in above else f"<{type(value).__name__}, nested too deeply>"
        if members is not None:
            return self.mapping(members, path, levels, (*above, id(value)))
        if nested:
            kept = []
            for i, item in enumerate(value):
                if self._entries <= 0 or self._characters <= 0:
                    kept.append(f"… (cut from {len(value):,} entries)")
                    break
                secret = is_secret("", item)
                if secret:
                    self.hidden.append(f"{path}[{i}]")
                kept.append(HIDDEN if secret else self._value(item, f"{path}[{i}]", levels - 1, (*above, id(value))))
            return kept
        if isinstance(value, str):
            value = cut(value, VALUE_CHARACTERS)
            self._spend(value)
            return value
        if isinstance(value, type) or callable(value):
            return f"<{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}>"[:200]
        return plain(value, 0)

    def _spend(self, text: str) -> None:
        self._characters -= len(text)


def is_secret(key: str, value: Any) -> bool:
    """Whether a setting should not be stored, by its key or by what its value looks like."""
    if isinstance(value, str) and SECRET_VALUES.search(value[:10_000]):
        return True
    if value is None or isinstance(value, bool) or (isinstance(value, str) and not value):
        return False
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", key)]
    if (SECRET_WORDS & set(words) and words != ["pwd"]) or SECRET_PAIRS & set(zip(words, words[1:], strict=False)):
        return True
    if not words or words[-1] != "token" or not isinstance(value, str):
        return False
    return len(words) == 1 or words[-2] in TOKEN_OWNERS or bool(LOOKS_RANDOM.fullmatch(value))


def _members(value: Any) -> Mapping[Any, Any] | None:
    """The parts of a mapping, or of an object that is like one; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, argparse.Namespace | SimpleNamespace):
        return vars(value)
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        return _Attributes(value, [item.name for item in fields(value)])
    for method in ("model_dump", "to_dict", "as_dict", "flag_values_dict"):
        if callable(getattr(type(value), method, None)):
            found = getattr(value, method)()
            return found if isinstance(found, Mapping) else None
    return None


class _Attributes(Mapping[str, Any]):
    """The attributes of an object by name, read when they are asked for."""

    def __init__(self, owner: Any, names: Sequence[str]) -> None:
        self._owner, self._names = owner, names

    def __getitem__(self, name: str) -> Any:
        return getattr(self._owner, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _public(value: Any) -> Mapping[str, Any]:
    """Public attributes of a class or object that are settings: no methods, modules or properties."""
    kept: dict[str, Any] = {}
    for owner in [*reversed(value.__mro__ if isinstance(value, type) else type(value).__mro__), value]:
        if owner is object:
            continue
        kept |= {name: item for name, item in vars(owner).items() if not name.startswith("_")
                 and not callable(item) and not isinstance(item, property | staticmethod | classmethod)
                 and type(item).__name__ != "module"}
    return kept


def _readable(items: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Names and values; a value that cannot be read (an interpolation without its target) becomes the reason."""
    for name in islice(items, ENTRIES + 1):
        try:
            yield name, items[name]
        except Exception as error:  # noqa: BLE001 - settings of any library
            yield name, f"<cannot be read: {type(error).__name__}>"
