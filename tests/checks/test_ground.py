"""The shape of answers: the level follows from the number, and every answer carries its ground."""

from __future__ import annotations

import pytest

from checks import Evidence, Finding, Ground, Masked, Spell, Statistic, Threshold
from checks.ground import unexplained
from checks.masking import Quiet

UP, DOWN = Threshold(1.0, 2.0, "1", "convention"), Threshold(0.5, 0.1, "1", "convention")


def _alarm(value: float, threshold: Threshold | None, **more: object) -> Finding:
    ground = Ground(7, threshold, (Masked("resume", 1, 2),), {"own": 1})
    return ground.alarm("It is so.", Statistic("x", value, "1"), Spell(3, 9, True), evidence=["loss/train"], means="m",
                        do="d", **more)  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(
    ("threshold", "value", "level"),
    [
        (UP, 2.1, "fail"), (UP, 2.0, "warn"), (UP, 0.0, "warn"), (UP, float("nan"), "warn"),
        (DOWN, 0.05, "fail"), (DOWN, 0.1, "warn"), (DOWN, 3.0, "warn"),
        (Threshold(None, 2.0, "1", "c"), 3.0, "fail"), (Threshold(1.0, None, "1", "c"), 9.0, "warn"),
        (None, 9.0, "warn"),
    ],
)  # fmt: skip
def test_the_level_of_an_alarm(threshold: Threshold | None, value: float, level: str) -> None:
    assert _alarm(value, threshold).level == level
    assert _alarm(value, threshold, level="fail").level == "fail"


def test_an_alarm_is_whole() -> None:
    told = _alarm(1.5, UP, onset="exact", details={"more": 2})
    assert told == Finding(
        level="warn", summary="It is so.", steps=(3, 9), ongoing=True, n=7, statistic=Statistic("x", 1.5, "1"),
        threshold=UP, evidence=(Evidence("loss/train", (3, 9)),), what_it_means="m", what_to_do="d",
        masked=(Masked("resume", 1, 2),), details={"own": 1, "more": 2, "onset": {"method": "exact"}},
    )  # fmt: skip


def test_a_spell_in_words() -> None:
    now, over = Spell(1200, 1300, ongoing=True), Spell(1200, 1300, ongoing=False)
    assert (now.words, now.end) == ("since step 1,200", "to the last step")
    assert (over.words, over.end) == ("from step 1,200 to 1,300", "until step 1,300")


def test_planned_events_explain_what_lies_in_their_window() -> None:
    event = Masked("resume", 10, 20)
    kept, masked = unexplained([(11, 20), (9, 12), (12, 13), (12, 21)], Quiet((event,), (10,)), lambda e: e)
    assert kept == [(9, 12), (12, 21)] and masked == (event,)
    assert unexplained([(11, 12)], Quiet((event,), (10,)), lambda e: None) == ([(11, 12)], ())
