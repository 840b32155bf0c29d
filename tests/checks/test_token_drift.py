"""Samples of one distribution pass, a percent of other text warns, and what cannot be told is unknown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from checks.data._drift import Course, Limits
from checks.finding import Finding
from checks.judge import run_checks
from trainvitals.card import RunCard
from trainvitals.formulas import REFERENCE_WINDOWS
from trainvitals.store import RunWriter, open_run

TEXTS = Path(__file__).parents[3] / "shared" / "data" / "text"
LIMITS = Limits(0.005, 0.04, 3.0, 6.0, REFERENCE_WINDOWS)


def zipf(tokens: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Shares of a vocabulary whose ids are in no order."""
    p = 1 / np.arange(1, tokens + 1) ** exponent
    return rng.permutation(p / p.sum())


def sampled(size: int, windows: tuple[int, int], share: float, tokens: int = 100_000, exponent: float = 1.0,
            seed: int = 0) -> list[np.ndarray]:
    """Windows of one text, then windows with a share of another."""
    rng = np.random.default_rng(seed)
    first, other = zipf(tokens, exponent, rng), zipf(tokens, exponent, rng)
    mixed = (1 - share) * first + share * other
    return [*rng.multinomial(size, first, windows[0]), *rng.multinomial(size, mixed, windows[1])]


def stored(where: Path, windows: Sequence[np.ndarray], switch: int | None = None) -> list[Finding]:
    """What the check says of a run with one domain and a row of token counts every 200 steps."""
    writer = RunWriter(where, when_full="wait")
    writer.write_card(RunCard(domains={"web": 1.0}))
    if switch is not None:
        writer.event("stage_switch", step=switch)
    frame = writer.frame("tokens", ["tokens/counts"], {"domain": ["web"],
                                                       "token": [str(i) for i in range(len(windows[0]))]})
    for row, counts in enumerate(windows, 1):
        frame.append(200 * row, {"tokens/counts": [counts.astype(np.int64)]})
    writer.close()
    return run_checks(open_run(where), only=["data.token_drift"]).findings  # type: ignore[return-value]


def course(windows: Sequence[np.ndarray]) -> Course:
    """The same windows without a store."""
    found = Course(LIMITS)
    for row, counts in enumerate(windows):
        found.add(200 * row, 200 * (row + 1), counts.astype(np.float64))
    return found


@pytest.mark.parametrize("size", [10**6, 10**7, 10**8])
def test_samples_of_one_distribution_pass(size: int, tmp_path: Path) -> None:
    (finding,) = stored(tmp_path, sampled(size, (4, 4), 0.0))
    assert finding.level == "pass" and "would have shown" in finding.summary, finding.summary


@pytest.mark.parametrize("windows", [(2, 2), (5, 3)], ids=str)
@pytest.mark.parametrize("size", [2 * 10**7, 10**8])
def test_one_percent_of_other_text_warns(size: int, windows: tuple[int, int], tmp_path: Path) -> None:
    (finding,) = stored(tmp_path, sampled(size, windows, 0.01))
    assert finding.level == "warn" and finding.onset == (200 * windows[0] + 1, 200 * windows[0] + 200)
    assert finding.statistic is not None and finding.statistic.value == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize(("tokens", "exponent"), [(32_000, 1.2), (100_000, 1.0), (256_000, 0.9)])
def test_both_errors_over_vocabularies_sizes_and_shares(tokens: int, exponent: float) -> None:
    """A percent that is missed is missed by windows that say they cannot see it; the same text is never an alarm."""
    rates: Counter[tuple[float, str]] = Counter()
    for size in (30_000, 3_000_000, 30_000_000):
        for share in (0.0, 0.01, 0.1):
            for seed in range(2):
                found = course(sampled(size, (5, 4), share, tokens, exponent, seed))
                level = "alarm" if found.episodes else "pass" if found.resolves <= 0.01 else "unknown"
                rates[share, level] += 1
                if found.episodes:
                    assert found.episodes[0].share[1] < 1.3 * share, (size, share, found.episodes[0].share)
    print({f"{share:.0%} {level}": n for (share, level), n in sorted(rates.items())}, "of 6 each")
    assert rates[0.0, "alarm"] == 0 and rates[0.01, "pass"] == 0 and rates[0.1, "pass"] == 0
    assert rates[0.0, "pass"] >= 2 and rates[0.01, "alarm"] >= 2 and rates[0.1, "alarm"] >= 4


@pytest.mark.parametrize("length", [50, 400])
def test_documents_that_repeat_their_words_are_no_drift(length: int) -> None:
    """Every document uses 40 words of its own beside the common ones: a law of independent tokens alarms."""
    rng = np.random.default_rng(1)
    p = zipf(5_000, 1.0, rng)
    alarms, found = 0, 0
    for _ in range(12):
        windows = []
        for _ in range(14):
            counts = rng.multinomial(60 * length, p).astype(float)
            for _ in range(60):
                counts[rng.choice(5_000, 40, p=p)] += rng.multinomial(length // 2, np.full(40, 1 / 40))
            windows.append(counts)
        alarms += bool(course(windows).episodes)
        shifted = [w if row < 7 else w + rng.multinomial(int(w.sum()), p[::-1]) for row, w in enumerate(windows)]
        found += bool(course(shifted).episodes)
    assert alarms == 0 and found == 12


def test_lone_windows_pass_or_are_unknown(tmp_path: Path) -> None:
    (same,) = stored(tmp_path / "same", sampled(2 * 10**7, (1, 1), 0.0))
    assert same.level == "pass" and "independent" in same.what_it_means
    (other,) = stored(tmp_path / "other", sampled(2 * 10**7, (1, 1), 0.05))
    assert other.level == "unknown"


def test_small_windows_say_what_would_have_shown(tmp_path: Path) -> None:
    (finding,) = stored(tmp_path, sampled(10**4, (6, 6), 0.0, tokens=5_000))
    assert finding.level == "unknown" and "to show" in finding.summary, finding.summary


def test_a_planned_switch_begins_anew_and_hides_nothing_after(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second, third = (zipf(2_000, 1.0, rng) for _ in range(3))
    windows = [*rng.multinomial(10**6, first, 6), *rng.multinomial(10**6, second, 6)]
    (finding,) = stored(tmp_path / "planned", windows, switch=1_150)
    assert finding.level == "pass" and finding.masked[0].step == 1_150, finding.summary
    (finding,) = stored(tmp_path / "later", [*windows, *rng.multinomial(10**6, third, 4)], switch=1_200)
    assert finding.level == "fail" and finding.onset == (2_401, 2_600), finding.summary


def test_what_was_said_stays_said() -> None:
    rng = np.random.default_rng(3)
    p, q = zipf(3_000, 1.0, rng), zipf(3_000, 1.0, rng)
    windows = [rng.multinomial(200_000, p if row < 9 or row > 16 else 0.9 * p + 0.1 * q) for row in range(24)]
    whole = course(windows).episodes
    assert len(whole) == 1 and not whole[0].ongoing and whole[0].onset == (1_801, 2_000)
    assert 3_200 <= whole[0].last <= 4_200
    for cut in range(2, 24):
        seen = course(windows[:cut]).episodes
        assert [e.onset for e in seen] == [e.onset for e in whole[: len(seen)]]
        assert bool(seen) == (cut > 10)


def test_an_early_episode_does_not_become_the_reference() -> None:
    rng = np.random.default_rng(5)
    p, q = zipf(3_000, 1.0, rng), zipf(3_000, 1.0, rng)
    found = course([rng.multinomial(300_000, q if row in (3, 4) else p) for row in range(20)])
    assert len(found.episodes) == 1 and not found.episodes[0].ongoing and found.episodes[0].onset[0] == 601


def test_after_a_switch_nothing_is_known_until_windows_come() -> None:
    rng = np.random.default_rng(6)
    p = zipf(3_000, 1.0, rng)
    found = course([rng.multinomial(3_000_000, p) for _ in range(12)])
    assert found.resolves < 0.01
    found.begin_anew()
    assert found.resolves > 1


@pytest.mark.skipif(not TEXTS.is_dir(), reason=f"real texts are not at {TEXTS}")
@pytest.mark.parametrize("length", [200, 2_000])
def test_real_documents_in_any_order_are_no_drift(length: int) -> None:
    """Words of five real sources, cut into documents and shuffled over windows; then another source takes over."""
    words = {path.stem: re.findall(r"\w+|[^\w\s]", path.read_text(encoding="utf-8", errors="replace"))
             for path in sorted(TEXTS.glob("*.txt"))}
    common = Counter(word for text in words.values() for word in text).most_common(6_000)
    numbers = {word: i for i, (word, _) in enumerate(common)}
    rng = np.random.default_rng(0)
    pieces = {name: np.array([numbers.get(word, 6_000) for word in text[: len(text) // length * length]])
              .reshape(-1, length) for name, text in words.items()}
    alarms = found = 0
    names = list(pieces)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        for _ in range(4):
            parts = np.array_split(rng.permutation(pieces[name]), 16)
            windows = [np.bincount(part.ravel(), minlength=6_001) for part in parts]
            alarms += bool(course(windows).episodes)
            moved = np.array_split(rng.permutation(pieces[other]), 16)
            after = [np.bincount(part.ravel(), minlength=6_001) for part in moved[:6]]
            found += bool(course(windows[:8] + after).episodes)
    print(f"false alarms {alarms} of 20, found {found} of 20")
    assert alarms == 0 and found >= 18
