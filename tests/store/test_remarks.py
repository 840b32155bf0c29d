"""Notes, acknowledgements and mutes in a run's folder: two viewers lose nothing, odd lines cost nobody else's words."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainvitals.errors import UsageError
from trainvitals.sealed import seal
from trainvitals.store import RunWriter, open_run
from trainvitals.store.remarks import LAST_SECOND, MOST_FILES, MOST_TEXT, Remark, add_remark, say, standing

MOMENTS = st.floats(0, LAST_SECOND - 1, allow_nan=False)
WORDS = st.text(max_size=60)


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory) -> Path:
    return new_run(tmp_path_factory.mktemp("remarks") / "run")


@pytest.fixture
def run(tmp_path) -> Path:
    return new_run(tmp_path / "run")


def new_run(path: Path) -> Path:
    writer = RunWriter(path)
    writer.frame("custom", []).append(1, {"x": 1.0})
    writer.close()
    return path


def sound(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(MOMENTS, WORDS.filter(str.strip), st.sampled_from(["note", "ack", "mute", "unmute"]), WORDS.filter(bool), WORDS)
def test_any_words_come_back_as_they_were_said(shared_run, at, who, kind, incident, text):
    remark = Remark(at, who, kind, incident, text if kind != "note" else text + "x", None)
    add_remark(shared_run, remark)
    assert Remark(at, sound(who), kind, sound(incident), sound(remark.text), None) in open_run(shared_run).remarks()


def test_who_speaks_at_once_is_heard(run):
    """Thirty-two people at once, through folders of their own: on a disk and in an object store."""
    url = f"memory://{run}"
    import fsspec

    fsspec.filesystem("memory").pipe(f"{run}/run.json", b"{}")
    for place in (run, url):
        threads = [threading.Thread(target=say, args=(place, "note", "a-1", f"{i}")) for i in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(int(r.text) for r in open_run(place).remarks()) == list(range(32))


def test_an_open_run_hears_what_is_said_later_without_a_new_version(run):
    open_ = open_run(run)
    before = open_.version
    assert open_.remarks() == []
    said = say(run, "mute", "a-1", hours=1, who="ada")
    assert not open_.refresh() and open_.version == before
    assert open_.remarks() == [said] and said.until == said.time + 3600
    assert open_.problems() == []


ODD = {
    "no JSON": b"{ not json\n", "a list": b"[1]\n", "deep": b"[" * 10_000 + b"]" * 10_000, "empty": b"{}\n",
    "no kind": json.dumps(seal({"time": 1.0, "who": "a", "kind": "shout"})).encode(),
    "a number for a name": json.dumps(seal({"time": 1.0, "who": 1, "kind": "note"})).encode(),
    "no time": json.dumps(seal({"time": math.nan, "who": "a", "kind": "note"})).encode(),
    "a time beyond clocks": json.dumps(seal({"time": 1e300, "who": "a", "kind": "note"})).encode(),
    "edited": json.dumps({**seal({"time": 1.0, "who": "a", "kind": "note", "text": "x"}), "text": "y"}).encode(),
    "too long": b" " * (1 << 17), "binary": bytes(range(256)),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_a_line_that_is_no_remark_is_named_and_costs_no_other(run, what):
    kept = say(run, "note", "a-1", "kept", who="ada")
    torn = json.dumps(seal(Remark(2.0, "bob", "note", "", "whole").to_json())).encode()
    (run / "remarks" / "20260101.jsonl").write_bytes(torn + b"\n" + ODD[what])
    opened = open_run(run)
    told = opened.remarks()
    assert kept in told and (what == "too long" or len(told) == 2)
    assert len([p for p in opened.problems() if "remarks/20260101.jsonl" in p]) == 1


def test_a_torn_line_and_one_written_by_hand(run):
    whole = json.dumps(seal(Remark(2.0, "bob", "note", "", "whole").to_json())).encode()
    place = run / "remarks"
    place.mkdir()
    (place / "torn.jsonl").write_bytes(whole + b"\n" + whole[:40])
    (place / "hand.jsonl").write_text('{"time": 3, "who": "eve", "kind": "ack", "incident": "a-1"}')
    (place / "link.jsonl").symlink_to("/dev/zero")
    (place / "other.txt").write_text("no remark")
    opened = open_run(run)
    assert [r.who for r in opened.remarks()] == ["bob", "eve"]
    said = " ".join(opened.problems())
    assert "torn.jsonl holds a line that is no remark" in said and "hand.jsonl has no checksum" in said


def test_half_characters_and_long_texts_in_a_file_are_made_sound(run):
    (run / "remarks").mkdir()
    raw = json.dumps(seal({"time": 1, "who": "\ud800" + "w" * 999, "kind": "note", "text": "t" * 9_999}))
    (run / "remarks" / "x.jsonl").write_text(raw)
    (told,) = open_run(run).remarks()
    assert told.who.encode() and len(told.who) == 80 and len(told.text) == MOST_TEXT


def test_more_files_than_are_read_leave_out_the_oldest_and_say_so(run):
    (run / "remarks").mkdir()
    for i in range(MOST_FILES + 3):
        line = json.dumps(seal(Remark(float(i), "a", "note", "", str(i)).to_json()))
        (run / "remarks" / f"{i:06d}.jsonl").write_text(line)
    opened = open_run(run)
    assert [r.text for r in opened.remarks()][:1] == ["3"]
    assert "3 files more than are read" in " ".join(opened.problems())


@pytest.mark.parametrize(("remark", "words"), [
    (Remark(1.0, "a", "note"), "needs a text"), (Remark(1.0, " ", "note", text="x"), "name"),
    (Remark(1.0, "a", "ack"), "id of an incident"), (Remark(1.0, "a", "note", text="x" * 4_001), "at most 4,000"),
    (Remark(1.0, "a", "shout", text="x"), "kind"), (Remark(math.inf, "a", "note", text="x"), "times"),
    (Remark(9.0, "a", "mute", until=8.0), "ends after"),
    (Remark(9.0, "a", "note", text="x", until=10.0), "Only a mute"),
])  # fmt: skip
def test_what_cannot_be_stored_is_refused_in_words(run, remark, words):
    with pytest.raises(UsageError, match=words):
        add_remark(run, remark)
    assert not (run / "remarks").exists()


def test_a_folder_without_a_run_gets_none_and_one_that_cannot_be_written_says_so(tmp_path, run):
    with pytest.raises(UsageError, match="holds no run"):
        say(tmp_path, "note", text="x")
    assert not (tmp_path / "remarks").exists()
    (run / "remarks").write_text("a file in the way")
    with pytest.raises(UsageError, match="could not be stored"):
        say(run, "note", text="x")


def test_what_stands():
    now = time.time()
    told = [
        Remark(now - 9, "ada", "note", "a-1", "looking"), Remark(now - 8, "bob", "ack", "a-1"),
        Remark(now - 7, "ada", "mute", "a-1", until=now + 60), Remark(now - 6, "ada", "note", "b-2", "other"),
        Remark(now - 5, "cy", "mute", "b-2"), Remark(now - 4, "cy", "unmute", "b-2"),
    ]  # fmt: skip
    first = standing(told, "a-1", now)
    assert (first.ack.who, first.mute.who, [n.text for n in first.notes]) == ("bob", "ada", ["looking"])
    assert standing(told, "a-1", now + 61).mute is None
    assert standing(told, "b-2", now).mute is None
    whole = [*told, Remark(now - 3, "di", "mute")]
    assert standing(whole, "b-2", now).mute.who == "di" == standing(whole, "", now).mute.who
    assert standing([*whole, Remark(now - 2, "di", "unmute")], "b-2", now).mute is None
