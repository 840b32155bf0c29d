"""One message per incident, whatever it does between two looks."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from checks.watch.alarms import OVER_LOOKS, Alarm, Told, tell

LOSS = Alarm("learning-412", "warn", "loss.divergence", 412, "Loss rose.", "Go back.", True, ("loss",))


def _kinds(looks: list[list[Alarm]], first_look: bool = False) -> list[str]:
    told: list[Told] = []
    kinds = []
    for i, alarms in enumerate(looks):
        told, news = tell(told, alarms, float(i), first_look and i == 0)
        kinds += [n.kind for n in news]
        told = [Told.from_json({**t.to_json(), "areas": list(t.areas)}) for t in told]
    return kinds


def test_it_is_told_once_then_worse_then_over() -> None:
    """Opened, a rise of the level, a new area, and the end: a message each, and none between."""
    fails = replace(LOSS, level="fail")
    spread = replace(fails, areas=("loss", "routing"))
    assert _kinds([[LOSS]] * 3 + [[fails]] * 3 + [[spread]] * 3 + [[]] * 9) == ["opened", "worse", "worse", "over"]


def test_a_level_that_comes_and_goes_is_one_incident() -> None:
    """Neither an absence shorter than the hysteresis nor a fall of the level is told."""
    fails = replace(LOSS, level="fail")
    assert _kinds([[fails], [], [], [fails], [LOSS], [], [fails]] * 5) == ["opened"]


def test_what_ended_before_the_first_look_is_history() -> None:
    """It is not told, until it goes on again."""
    ended = replace(LOSS, ongoing=False)
    assert _kinds([[ended]] * 9, first_look=True) == []
    assert _kinds([[ended], [ended], [LOSS]], first_look=True) == ["opened"]


def test_a_spike_that_is_over_already_is_one_message() -> None:
    """Seen during the watch, but at its end when it is first seen."""
    assert _kinds([[], [replace(LOSS, ongoing=False)]] + [[]] * 9) == ["opened"]


@given(st.lists(st.tuples(st.sampled_from(["none", "warn", "fail"]), st.booleans()), max_size=60))
def test_no_sequence_tells_more_than_its_levels(looks: list[tuple[str, bool]]) -> None:
    """Any order of looks opens once, worsens at most once a level, and is over at most once after each of these."""
    kinds = _kinds([[] if level == "none" else [replace(LOSS, level=level, ongoing=on)] for level, on in looks])
    assert kinds.count("opened") <= 1 and kinds.count("worse") <= 1 and kinds.count("over") <= 2
    assert kinds[:1] in ([], ["opened"])
    assert OVER_LOOKS > 1
