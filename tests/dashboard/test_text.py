from __future__ import annotations

import math

import pytest

from dashboard.charts import text


@pytest.mark.parametrize(("value", "shown"), [
    (None, "unknown"), (0, "0"), (0.001234, "0.00123"), (4.5, "4.5"), (999.9, "1000"), (1234.5, "1,234"),
    (12345, "12.3k"), (4_500_000, "4.5M"), (1.2e-5, "1.20e-05"), (float("nan"), "NaN"), (float("-inf"), "-∞"),
])  # fmt: skip
def test_numbers_are_short_and_keep_three_digits(value, shown):
    assert text.number(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [
    (0.4, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h"),
    (None, "unknown"), (math.inf, "unknown"),
])  # fmt: skip
def test_durations_use_their_two_largest_units(seconds, shown):
    assert text.duration(seconds) == shown


def test_every_number_has_its_unit():
    assert text.quantity(3.2, "nats/token") == "3.2 nats/token"
    assert text.quantity(0.5, "1") == "0.5"
    assert text.share(0.1234) == "12.3 %"
    assert text.gibibytes(3 * 2**30) == "3 GiB"


def test_plain_is_one_bounded_line_without_invisible_characters():
    assert text.plain("a\n\tb\u202ec\x00\u200b d") == "a bc d"
    assert len(text.plain("x" * 999, 50)) == 50


def test_md_leaves_no_markdown_character_bare():
    marks = "*_`[]()<>#$:~|!{}-+.@&"
    escaped = text.md(marks)
    assert [c for previous, c in zip(" " + escaped, escaped, strict=False) if c in marks and previous != "\\"] == []


@pytest.mark.parametrize("match", [":tada:", "://", "a@b", "->", "www."])
def test_md_parts_what_is_matched_after_unescaping(match):
    unescaped = text.md(f"x {match}y").replace("\\", "")
    assert match not in unescaped
    assert unescaped.replace(text.JOINER, "") == f"x {match}y"


def test_only_plain_https_addresses_become_links():
    assert "](https://arxiv.org/abs/2408.15664)" in text.source("https://arxiv.org/abs/2408.15664")
    for hostile in ("javascript:alert(1)", "https://a.b/](javascript:1)", "http://a.b", "https://a.b/x y"):
        assert "](" not in text.source(hostile)


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-x", "@a", "a;=2", ' "=1', "\uff1d1"])
def test_what_a_spreadsheet_would_run_is_marked_unseen_and_only_once(formula):
    marked = text.plain(formula)
    assert marked.count(text.JOINER) == 1 and marked.replace(text.JOINER, "") == formula.strip()
    assert text.plain(marked) == marked
    assert not marked.startswith(("=", "+", "-", "@"))
    assert text.md(formula).count("\\") == sum(not c.isalnum() and c.isascii() and c != " " for c in formula.strip())
