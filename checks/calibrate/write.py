"""A fitted policy as TOML: what was turned as settings, what was kept as comments, and why each is as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from checks.calibrate.dials import Dial
from checks.calibrate.fit import WARNINGS, Fitted
from checks.policy import pairs, shipped


def ordered(fits: Sequence[Fitted]) -> dict[tuple[str, str], dict[str, float]]:
    """Settings by name and level; a failure stays behind its warning, and is turned as far as that where it did not."""
    found: dict[tuple[str, str], dict[str, float]] = {(f.dial.name, f.dial.level): f.dial.at(f.scale) for f in fits}
    for f in fits:
        fails = next((g for g in fits if g.dial.name == f.dial.name and g.dial.level == "fail"), None)
        if f.dial.level == "warn" and fails is not None and _crossed(f.dial, found):
            found[f.dial.name, "fail"] = fails.dial.at(max(f.scale, fails.scale))
    return found


def _crossed(dial: Dial, found: Mapping[tuple[str, str], Mapping[str, float]]) -> bool:
    warns, fails = found[dial.name, "warn"], found[dial.name, "fail"]
    each = [(a in dial.down, warns[a], fails[b]) for a, b in pairs(shipped()[dial.name]) if a in warns and b in fails]
    return any(fail >= warn if down else fail <= warn for down, warn, fail in each)


def policy_text(fits: Sequence[Fitted], runs: Sequence[str], refused: Iterable[str], failures: float) -> str:
    """The file. Every number is explained by the comment above it."""
    lines = [
        "# Thresholds fitted by `trainvitals calibrate`; read by --policy of check and dashboard.",
        f"# Wanted: {words(failures)} false `fail` and {words(WARNINGS * failures)} false `warn`.",
        f"# From {len(runs)} run{'' if len(runs) == 1 else 's'} called healthy:",
        *(f"#   {_printable(run)}" for run in runs),
        *(f"# Not learnt from: {_printable(sentence)[:200]}" for sentence in refused),
        "# A number behind # is the shipped value, which was kept.",
    ]
    settings = ordered(fits)
    for name in dict.fromkeys(f.dial.name for f in fits):
        lines += ["", f"[{name}]"]
        for f in (f for f in fits if f.dial.name == name):
            lines += [f"# {line}" for line in _reasons(f)]
            lines += [_setting(name, key, value) for key, value in settings[name, f.dial.level].items()]
    return "\n".join(lines) + "\n"


def _setting(name: str, key: str, value: float) -> str:
    default: Any = shipped()[name][key]
    return f"# {key} = {default!r}" if value == default else f"{key} = {value!r}    # shipped: {default!r}"


def _reasons(f: Fitted) -> list[str]:
    found = [f"`{f.dial.level}` {f.why}.", f"{measured(f)}."]
    if f.scale != 1:
        found.append(f"At the shipped value: {f.before} in the same rows.")
    if f.elsewhere is not None:
        found.append(f"On each run with the others' setting: {f.elsewhere[0]} in {f.elsewhere[1]:,} rows.")
    found += [f"Alone decided it, so not learnt from: {_printable(run)}" for run in f.alone]
    return found


def measured(f: Fitted) -> str:
    """What was counted, and the bound of it."""
    if not f.rows:
        return "Not measured"
    alarms = f"{f.alarms} alarm{'' if f.alarms == 1 else 's'} in {f.rows:,} rows of {f.runs} run{'s' * (f.runs != 1)}"
    return f"Measured: {alarms}, {words(f.alarms / f.rows)}, at 95 % below {words(f.bound)}"


def words(rate: float) -> str:
    """A rate, as so many of 100,000."""
    return f"{1e5 * rate:.3g} per 100,000 rows"


def _printable(line: str) -> str:
    # A path may hold a line feed, which would end the comment and begin a setting.
    return "".join(c if c.isprintable() else "?" for c in line)
