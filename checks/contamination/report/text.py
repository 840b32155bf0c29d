"""HTML in which every string is escaped unless this module built it, and invisible characters can be seen.

`tag("td", hostile_string, class_="num")` escapes; an `Html` child is taken as it is. `marked(document, spans)` is the
document with the shared spans in <mark>.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Controls, changes of direction, zero-width fillers, tags and lone surrogates. Joiners (U+200C, U+200D) stay: scripts
and emoji need them, and they move nothing."""
LINE = 300
"""Characters of a name, an id or a rule."""
BLOCK = 2_400
"""Characters of a document or an item that are shown."""
LEAD = 300
"""Characters shown before the first shared span."""


class Html(str):
    """Markup that may go into the page as it is."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element. `class_` is the attribute class, `_` in other names is `-`; attributes of None are left out."""
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_named(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    return Html(f"<{name}{''.join(pairs)}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Html:
    """The children one after the other, strings escaped and cut to `LINE`; None is nothing."""
    return Html("".join(c if isinstance(c, Html) else text(str(c)) for c in children if c is not None))


def text(value: str, limit: int = LINE) -> Html:
    """A string of one line: escaped, cut, invisible characters shown."""
    return Html(_shown(value) if len(value) <= limit else _shown(value, 0, limit) + "…")


def prose(words: str) -> Html:
    """A paragraph of the report's own: not cut."""
    return text(words, len(words))


def _shown(value: str, start: int = 0, stop: int | None = None) -> str:
    """value[start:stop]; a carriage return is left out before a line feed, which may lie behind `stop`."""
    stop = len(value) if stop is None else stop
    parts = []
    at = start
    for found in _UNSEEN.finditer(value, start, stop):
        parts.append(html.escape(value[at : found.start()]))
        at = found.end()
        if value[at - 1 : at + 1] != "\r\n":
            parts.append(f'<span class="ctl">{_code(found[0])}</span>')
    return "".join([*parts, html.escape(value[at:stop])])


def _named(value: str) -> str:
    return _UNSEEN.sub(lambda found: _code(found[0]), value)


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def marked(value: str, spans: Sequence[Sequence[int]] | None, limit: int = BLOCK) -> Html:
    """A text with its spans (pairs of character positions, any order) in <mark>, cut to `limit` around the first."""
    clean = _tidy(spans or (), len(value))
    first = clean[0][0] if clean else 0
    start = max(0, min(first - LEAD, len(value) - limit))
    stop = min(len(value), start + limit)
    parts = [_left_out(start, "before")]
    at = start
    for low, high in clean:
        low, high = max(low, start), min(high, stop)
        if low >= high:
            continue
        parts += [_shown(value, at, low), "<mark>", _shown(value, low, high), "</mark>"]
        at = high
    return Html("".join([*parts, _shown(value, at, stop), _left_out(len(value) - stop, "after")]))


def _left_out(n: int, where: str) -> str:
    return f'<span class="cut">{n:,} characters {where}</span>' if n else ""


def _tidy(spans: Sequence[Sequence[int]], length: int) -> list[tuple[int, int]]:
    """Spans within the text, in order, overlapping ones joined."""
    inside = sorted((max(0, int(a)), min(length, int(b))) for a, b in spans)
    joined: list[tuple[int, int]] = []
    for low, high in inside:
        if low >= high:
            continue
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def table(head: Sequence[object], rows: Iterable[Sequence[object]], class_: str | None = None) -> Html:
    """A table that scrolls sideways where it must. Columns of numbers stand to the right."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    right = ["num" if any(_is_right(row[i]) for row in cells) else None for i in range(len(head))]
    columns = tag("thead", tag("tr", *(tag("th", h, scope="col", class_=c) for h, c in zip(head, right, strict=True))))
    body = tag("tbody", *(tag("tr", *row) for row in cells))
    return tag("div", tag("table", columns, body, class_=class_), class_="scroll")


def _is_right(cell: Html) -> bool:
    return cell.startswith('<td class="num')


def _cell(cell: object) -> Html:
    if isinstance(cell, Html) and cell.startswith("<td"):
        return cell
    plain = not isinstance(cell, Html) and re.match(r"[-+]?[\d.]|–$", str(cell))
    return tag("td", cell, class_="num" if plain else None)


def figure(value: float | None, digits: int = 3) -> str:
    """A score or share to `digits` decimals; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share of one as per cent; a dash for None."""
    if value is None:
        return "–"
    return f"{100 * value:.{1 if value >= 0.0005 or value == 0 else 3}f} %"


def percents(low: float | None, high: float | None) -> str:
    """An interval of shares: 2.3 to 4.1 %."""
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def size(n_bytes: float) -> str:
    """Bytes as B, kB, MB, GB or TB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def plural(n: int, noun: str) -> str:
    """A count and its noun: 1 item, 2 items."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
