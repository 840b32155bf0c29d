"""Words and numbers as the board shows them: escaped, with units, never longer than their place.

Every string that comes out of a run is hostile until it went through `md` (for Streamlit's markdown) or `plain`
(for chart labels, alternative texts and tables, which are never parsed).
"""

from __future__ import annotations

import math
import re

from trainvitals.spreadsheet import safe_cell

JOINER = "\u2060"
"""Word joiner: no width, no glyph. It parts what markdown's text passes would join after unescaping."""

_CONTROL = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def plain(text: object, limit: int = 300) -> str:
    """One line without control or direction-changing characters, cut to `limit` characters.

    Streamlit writes the strings of a table, and those of a chart's data, into a CSV as they are: a joiner that nobody
    sees keeps them from being formulas there. Giving the result again changes nothing.
    """
    return safe_cell(_line(text, limit), JOINER)


def _line(text: object, limit: int) -> str:
    line = " ".join(_CONTROL.sub("", str(text)).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def md(text: object, limit: int = 300) -> str:
    """The text shown literally by any Streamlit command that reads markdown.

    A backslash before every ASCII punctuation mark disarms CommonMark, GFM, maths and Streamlit's directives
    (https://spec.commonmark.org/0.31.2/#backslash-escapes). Emoji shortcodes, autolinks and typographic arrows are
    found later, in the unescaped text, so a zero-width joiner is put where they would match.
    """
    escaped = _PUNCTUATION.sub(r"\\\1", _line(text, limit))
    for mark in (":", "@", "-", "<", "~", ">"):
        escaped = escaped.replace("\\" + mark, f"\\{mark}{JOINER}")
    return re.sub(r"(?i)\b(www)(?=\\\.)", rf"\1{JOINER}", escaped)


def number(value: float | None, digits: int = 3) -> str:
    """A number to `digits` significant digits: 0.00123, 4.56, 1,235, 12.3k, 4.5M, 1.2e-05, NaN; "unknown" for None."""
    if value is None:
        return "unknown"
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size != 0 and size < 1e-3 or size >= 1e15:
        return f"{value:.{digits - 1}e}"
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= scale:
            return _significant(value / (1e3 if suffix == "k" else scale), digits) + suffix
    return f"{round(value):,}" if size >= 1000 else _significant(value, digits)


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: int | None) -> str:
    """A whole number with thousands separators; "unknown" for None."""
    return "unknown" if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """A share of one as per cent."""
    return "unknown" if value is None else f"{number(value * 100)} %"


def quantity(value: float | None, unit: str) -> str:
    """A number and its unit; shares (unit "1") carry none."""
    return number(value) if unit in ("", "1") else f"{number(value)} {unit}"


def gibibytes(value: float | None) -> str:
    """Bytes as GiB (1024**3) or MiB."""
    if value is None or math.isnan(value):
        return "unknown"
    return f"{number(value / 2**30)} GiB" if value >= 2**30 else f"{number(value / 2**20)} MiB"


def duration(seconds: float | None) -> str:
    """A span of time in its two largest units: 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    whole = max(round(seconds), 0)
    for size, unit, below, below_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {below_unit}" if rest else "")
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    """How long ago, for the newest data of a run."""
    return "no data yet" if seconds is None else f"{duration(seconds)} ago"


def steps(first: int | None, last: int | None) -> str:
    """A step range: "step 1,200", "steps 1,200 to 1,260", "" where nothing is known."""
    if first is None:
        return "" if last is None else f"up to step {last:,}"
    if last is None:
        return f"since step {first:,}"
    return f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun: 1 finding, 2 findings."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


_SAFE_LINK = re.compile(r"https://[\w.-]+(?:/[\w./~#=%&+,-]*)?")


def source(where: str) -> str:
    """Where a threshold comes from, as markdown: a link if it is a plain https URL, literal text otherwise."""
    if _SAFE_LINK.fullmatch(where):
        return f"[{md(where.removeprefix('https://'), 60)}]({where})"
    return md(where, 200)
