"""Write docs/checks.md from the checks: `python docs/make_checks.py`, or `--check` to compare only.

What stands above the first check is docs/checks_method.md: how the streaming judge works and what was measured.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from checks import AREAS, Check, all_checks

HERE = Path(__file__).parent
TARGET, METHOD = HERE / "checks.md", HERE / "checks_method.md"


def render() -> str:
    """The page."""
    parts = [METHOD.read_text(encoding="utf-8").rstrip()]
    for area in AREAS:
        parts.append(f"## {area.capitalize()}")
        parts += [_section(check) for check in all_checks() if check.area == area]
    return "\n\n".join(parts) + "\n"


def _section(check: Check) -> str:
    text = " ".join((inspect.getdoc(check.function) or "").partition("\n\n")[2].split())
    why, _, how = text.removeprefix("Why it matters: ").partition(" How to read it: ")
    lines = [f"### {check.name}", check.meaning, f"Why it matters: {why}", f"How to read it: {how}"]
    lines.append(f"Reads {_names(check.reads)}" + (f"; sharpened by {_names(check.uses)}." if check.uses else "."))
    source = getattr(sys.modules[check.function.__module__], "SOURCE", "") or _shared_source(check)
    if source:
        lines.append(f"Threshold: {source}.")
    if check.defaults:
        lines.append("Settings: " + ", ".join(f"`{name}` {value}" for name, value in check.defaults.items()) + ".")
    if check.refs:
        lines.append("Source: " + ", ".join(f"<{url}>" for url in check.refs) + ".")
    return "\n\n".join(lines)


def _shared_source(check: Check) -> str:
    if check.area != "loss":
        return ""
    from checks.loss._stream import SOURCE

    return SOURCE


def _names(signals: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in signals) or "the run's record"


def main() -> None:
    """Write, or compare."""
    text = render()
    if "--check" in sys.argv:
        current = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        sys.exit(0 if current else "docs/checks.md is out of date: run python docs/make_checks.py")
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
