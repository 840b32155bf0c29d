"""Messages say what happened, and nothing in a run's name or findings can act on a channel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.watch.alarms import News
from checks.watch.hours import quiet_hours
from checks.watch.message import MOST_BODY, MOST_TITLE, Message, clean, write
from tests.watch.test_alarms import LOSS
from trainvitals.errors import UsageError

EVIL = "x\r\nBcc: all@b.c\r\n\r\n@everyone <!channel> <b>*hi*</b> `rm` [a](http://evil) \u202e\x00"


def test_a_message_names_level_run_fault_and_step() -> None:
    """The title is the line on a locked phone; the link opens the run's incident."""
    made = write(News("opened", LOSS), "moe 7b", "/runs/moe 7b", 1.0, "http://board/")
    assert made.title == "WARN · moe 7b · loss.divergence · since step 412"
    assert made.body == "Loss rose. Go back.\nhttp://board/?run=moe%207b&incident=learning-412"
    assert Message.from_json(made.to_json()) == made


@given(st.text() | st.just(EVIL))
def test_nothing_forges_a_header_a_ping_or_a_tag(text: str) -> None:
    """In name, words and remedy alike; the body's only line break is that before the board's link."""
    alarm = replace(LOSS, words=text, remedy=text, what=text)
    made = write(News("opened", alarm), text, text, 1.0, "http://board")
    assert "\n" not in made.title and made.body.count("\n") == 1
    said = made.title + made.body.partition("\n")[0]
    assert not set(said) & set("@<>`*[]|\r\x00\u202e") and "://" not in said
    assert len(made.title) <= MOST_TITLE and len(made.body.partition("\n")[0]) <= MOST_BODY
    (made.title + made.body).encode()


def test_clean_cuts_long_texts() -> None:
    """With a sign that something is left out."""
    assert clean("a" * 500, 10) == "aaaaaaaaa…"


@pytest.mark.parametrize(("text", "hour", "quiet"), [
    ("22:00-07:00", 23, True), ("22:00-07:00", 6, True), ("22:00-07:00", 7, False), ("22:00-07:00", 12, False),
    ("09:00-17:00", 12, True), ("22:00-07:00 Asia/Tokyo", 14, True), ("22:00-07:00 Asia/Tokyo", 23, False),
])  # fmt: skip
def test_quiet_hours_have_a_zone(text: str, hour: int, quiet: bool) -> None:
    """14:00 UTC is 23:00 in Tokyo."""
    assert quiet_hours(text).holds(1_700_006_400 + hour * 3600) is quiet  # 2023-11-15 00:00 UTC


@pytest.mark.parametrize("text", ["", "22-7", "25:00-07:00", "22:00-07:00 Mars/Base", "22:00-07:00 ../etc/passwd"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    """With one sentence."""
    with pytest.raises(UsageError):
        quiet_hours(text)
