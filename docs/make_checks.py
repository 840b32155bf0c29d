"""Write docs/checks.md and checks/policy.toml from the checks: `python docs/make_checks.py`, or `--check` to compare.

What stands above the first check is docs/checks_method.md: how the streaming judge works and what was measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

from checks import AREAS, all_checks
from checks.handbook import policy_text, section
from checks.policy import SHIPPED

HERE = Path(__file__).parent
TARGET, METHOD = HERE / "checks.md", HERE / "checks_method.md"


def render() -> str:
    """The page."""
    parts = [METHOD.read_text(encoding="utf-8").rstrip()]
    for area in AREAS:
        parts.append(f"## {area.capitalize()}")
        parts += [section(check) for check in all_checks() if check.area == area]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write, or compare."""
    for target, text in ((TARGET, render()), (SHIPPED, policy_text())):
        if "--check" not in sys.argv:
            target.write_text(text, encoding="utf-8")
        elif not target.is_file() or target.read_text(encoding="utf-8") != text:
            sys.exit(f"{target.name} is out of date: run python docs/make_checks.py")


if __name__ == "__main__":
    main()
