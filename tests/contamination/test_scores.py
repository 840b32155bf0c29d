"""Scores of every layout, the effect of a leak on them, and which score to trust.

Oracles: scipy, statsmodels, published figures, brute force, and simulated leaks of known size.
"""

from __future__ import annotations

import gzip
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact, norm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from benchmarks.contamination_edits import CASES, standings
from checks.contamination.score import effect
from checks.contamination.score.decision import decide
from checks.contamination.score.effect import (
    bootstrap_means,
    contaminated_share,
    estimate,
    gap,
    holm,
    llama2_z,
    measure,
    newcombe,
    permutation_p,
    wilson,
)
from checks.contamination.score.scores import Matched, match_scores, read_scores
from checks.contamination.score.sweep import THRESHOLDS, sweep
from trainvitals.errors import UsageError

# Per-item scores.


def _items(n: int = 6, benchmark: str = "gsm8k", verdicts: list[str] | None = None, prefix: str = "") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "benchmark": benchmark,
            "item_id": [f"{prefix}{i}" for i in range(n)],
            "verdict": verdicts or ["clean"] * n,
            "score": 0.0,
            "text": [f"question: How many apples does person number {i} have?\nanswer: {i}" for i in range(n)],
        }
    )


SCORES = {"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0}


def _write(folder: Path, layout: str) -> Path:
    rows = [{"item_id": key, "score": value} for key, value in SCORES.items()]
    path = folder / f"gsm8k.{layout}"
    match layout:
        case "json":
            path.write_text(json.dumps(SCORES))
        case "model.json":
            path.write_text(json.dumps({"mine": SCORES}))
        case "list.json":
            path.write_text(json.dumps(rows))
        case "jsonl":
            path.write_text(
                "\n\n".join(json.dumps({"doc_id": int(r["item_id"]), "acc": bool(r["score"])}) for r in rows)
            )
        case "jsonl.gz":
            path.write_bytes(gzip.compress("\n".join(json.dumps(r) for r in rows).encode()))
        case "csv":
            path.write_text("\ufefftask_id,exact_match,note\n" + "".join(f"{k},{v},x\n" for k, v in SCORES.items()))
        case "tsv":
            path.write_text("id\tcorrect\n" + "".join(f"{k}\t{'True' if v else 'false'}\n" for k, v in SCORES.items()))
        case "parquet":
            pq.write_table(
                pa.table({"id": [float(k) for k in SCORES], "score": [v > 0 for v in SCORES.values()]}), path
            )
    return path


@pytest.mark.parametrize("layout", ["json", "model.json", "list.json", "jsonl", "jsonl.gz", "csv", "tsv", "parquet"])
def test_every_layout_gives_the_same_scores(tmp_path: Path, layout: str):
    found = match_scores(_items(), read_scores([f"mine={_write(tmp_path, layout)}"]))
    assert dict(zip(found.rows["item_id"], found.rows["score"], strict=True)) == SCORES
    assert set(found.rows["model"]) == {"mine"} and set(found.rows["benchmark"]) == {"gsm8k"}
    assert found.unscored == {("gsm8k", "mine"): 2}
    assert [p.what for p in found.problems] == ["2 of the 6 items of gsm8k have no score: the others speak for them."]


def _sample(folder: Path, docs: list[str], ids: list[int] | None = None) -> Path:
    path = folder / "my__model" / "samples_gsm8k_cot_2026-01-05T10-00-00.123456.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = []
    for name, right in (("strict-match", 1.0), ("flexible-extract", 0.0)):
        for i, doc in zip(ids or range(len(docs)), docs, strict=True):
            lines.append(json.dumps({"doc_id": i, "doc": {"question": doc}, "filter": name, "exact_match": right,
                                     "metrics": ["exact_match"], "arguments": {}}))  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def test_lm_eval_samples_are_matched_by_position_and_checked_by_text(tmp_path: Path):
    items = _items(4, prefix="GSM/")
    texts = [f"How many apples  does person\nnumber {i} have?" for i in range(4)]
    _sample(tmp_path, texts)
    found = match_scores(items, read_scores([tmp_path / "my__model"]))
    assert list(found.rows["item_id"]) == list(items["item_id"])
    assert set(found.rows["score"]) == {1.0} and set(found.rows["model"]) == {"my__model"}
    assert any("flexible-extract" in problem.what for problem in found.problems)

    _sample(tmp_path, texts[::-1])
    shuffled = match_scores(items, read_scores([tmp_path / "my__model"]))
    assert shuffled.rows.empty and "not the items" in shuffled.problems[-1].what


def test_positions_are_not_taken_for_ids_that_begin_at_1(tmp_path: Path):
    """Ids 1 to 4 share three numbers with positions 0 to 3: taken for ids, every score would be one item off."""
    items = _items(4).assign(item_id=["1", "2", "3", "4"])
    _sample(tmp_path, [f"How many apples does person number {i} have?" for i in range(4)])
    sampled = match_scores(items, read_scores([tmp_path / "my__model"]))
    assert list(sampled.rows["item_id"]) == ["1", "2", "3", "4"]

    for name, header in (("positions", "doc_id"), ("unclear", "id")):
        (tmp_path / f"{name}.csv").write_text(f"{header},score\n0,1\n1,0\n2,0\n3,0\n")
    found = match_scores(items, read_scores([tmp_path / "positions.csv"])).rows
    assert dict(zip(found["item_id"], found["score"], strict=True)) == {"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0}
    unclear = match_scores(items, read_scores([tmp_path / "unclear.csv"]))
    assert unclear.rows.empty and "doc_id if it counts from 0" in unclear.problems[-1].what


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", '{"0": 63.1}', "item 0: the score 63.1 is not between 0 and 1. Divide percentages by 100."),
        ("a.json", '{"0": "good"}', "'good' is no score"),
        ("a.json", '{"0": 1', "not JSON at line 1"),
        ("a.json", "[]", "holds no scores"),
        ("a.jsonl", '{"id": 1, "score": 1}\n{"id": 2, "sco', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"score": 1}\n', "no column for the item: it has score"),
        ("a.jsonl", '{"id": 1, "loss": 1}\n', "no column for the score: it has id, loss"),
        ("a.jsonl", '{"id": 1, "score": 1}\n{"score": 1}\n', "line 2 has a score but no id"),
        ("a.csv", "", "is empty"),
        ("a.csv", b"id,score\n\xff,1\n", "not UTF-8 at byte 9"),
        ("a.parquet", "PAR0", "not a readable Parquet file"),
        ("a.jsonl.gz", "not gzip", "Cannot read the scores"),
    ],
)
def test_bad_files_get_one_sentence_with_place_and_remedy(tmp_path: Path, name: str, content: str | bytes, says: str):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError) as raised:
        read_scores([path])
    assert says in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_files_and_clashing_models_are_refused(tmp_path: Path):
    path = _write(tmp_path, "json")
    other = tmp_path / "other.json"
    other.write_text(path.read_text())
    for specs, controls, says in (
        ([tmp_path / "none*.json"], [], "no score file"),
        ([tmp_path], [], "no samples_"),
        ([f"m={path}"], [f"m={path}"], "by --scores and by --control"),
        ([f"m={path}", f"m={tmp_path}/gs*.json", f"m={other}"], [], ""),
    ):
        if says:
            with pytest.raises(UsageError, match=says):
                read_scores(specs, controls)
    (tmp_path / "x").mkdir()
    again = tmp_path / "x" / "gsm8k.json"
    again.write_text(path.read_text())
    with pytest.raises(UsageError, match="both score item"):
        read_scores([path, again])


def test_what_does_not_fit_is_counted_and_said(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "item_id,score,benchmark\n0,1,gsm8k\n0,0,gsm8k\n1,,gsm8k\n99,1,gsm8k\n0,1,hellaswag\n1,1,GSM8K test\n"
    )
    found = match_scores(pd.concat([_items(3), _items(3, "mmlu")]), read_scores([path]))
    assert found.rows[["benchmark", "item_id", "score"]].values.tolist() == [["gsm8k", "0", 0.5], ["gsm8k", "1", 1.0]]
    assert found.unmatched == {("gsm8k", "mine"): 1} and found.unscored == {("gsm8k", "mine"): 1}
    said = " | ".join(problem.what for problem in found.problems)
    for words in ("without a score", "more than once", "does not hold", "hellaswag, which is not a benchmark"):
        assert words in said


def test_ids_that_fit_two_benchmarks_are_not_guessed(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SCORES))
    found = match_scores(pd.concat([_items(4), _items(4, "mmlu")]), read_scores([path]))
    assert found.rows.empty and "fit gsm8k and mmlu alike" in found.problems[0].what


# Statistics.


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_intervals_and_z_agree_with_scipy_and_statsmodels(n: int, m: int, data: st.DataObject):
    hits, other = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(hits, n), (expected.low, expected.high), atol=1e-12)
    difference = confint_proportions_2indep(hits, n, other, m, method="newcomb", compare="diff")
    np.testing.assert_allclose(newcombe(hits, n, other, m), difference, atol=1e-12)
    found = gap(_binary(hits, n), _binary(other, m))
    if 0 < hits + other < n + m:
        assert found.z == pytest.approx(proportions_ztest([hits, other], [n, m])[0], abs=1e-9)
        table = [[hits, n - hits], [other, m - other]]
        assert found.p == pytest.approx(fisher_exact(table, alternative="greater").pvalue, rel=1e-6, abs=1e-12)
    else:
        assert found.z is None and found.p == 1.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p: list[float]):
    np.testing.assert_allclose(holm(np.array(p)), multipletests(p, method="holm")[1])


def _binary(hits: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [hits, n - hits])


PUBLISHED = [  # GSM8K test, 40 items that share phrasing with its train set, 1279 that do not
    ("gpt-4", 0.933, 0.933, 0.925, -0.2),
    ("gpt-3.5-turbo", 0.736, 0.735, 0.775, 0.6),
    ("metamath-7b", 0.667, 0.665, 0.750, 1.1),
    ("metamath-13b", 0.710, 0.707, 0.800, 1.3),
    ("metamath-70b", 0.824, 0.821, 0.925, 1.7),
    ("abel-7b", 0.594, 0.590, 0.725, 1.7),
    ("abel-13b", 0.667, 0.663, 0.800, 1.8),
    ("abel-70b", 0.838, 0.833, 0.975, 2.4),
    ("tora-7b", 0.667, 0.664, 0.775, 1.5),
    ("tora-13b", 0.709, 0.705, 0.825, 1.6),
]


@pytest.mark.parametrize(("model", "whole", "clean", "dirty", "z"), PUBLISHED)
def test_published_llama2_z_of_gsm8k(model: str, whole: float, clean: float, dirty: float, z: float):
    of_clean, of_dirty = _binary(round(clean * 1279), 1279), _binary(round(dirty * 40), 40)
    both = np.concatenate([of_clean, of_dirty])
    found = llama2_z(of_dirty, both)
    print(f"{model}: whole {both.mean():.3f}, Llama-2 Z {found:+.2f}, published {z:+.1f}")
    assert both.mean() == pytest.approx(whole, abs=1.1e-3)
    assert found == pytest.approx(z, abs=0.11)


def _simulated(rng: np.random.Generator, leak: float, easier: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model and two controls on 40 dirty and 1279 clean items: [3, 40] and [3, 1279].

    All find the same items hard; leak and ease of the dirty items are on the probit scale.
    """
    dirty = np.arange(1319) < 40
    skill = np.array([0.3, 0.1, 0.6])[:, None] + np.array([leak, 0, 0])[:, None] * dirty
    score = rng.normal(size=1319) + easier * dirty + skill + rng.normal(size=(3, 1319)) > 0
    return score[:, :40].astype(float), score[:, 40:].astype(float)


def _matched(rows: pd.DataFrame) -> Any:
    return Matched(rows, {}, {}, ())


def test_size_power_and_coverage_of_the_gap_beyond_controls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(effect, "RESAMPLES", 999)
    rng, runs, covered = np.random.default_rng(7), 250, 0
    # Expected differences of scores from the probit model: each score is a normal of variance 2 above 0.
    truth = _rise(0.3, 0.5, 1.0) - np.mean([_rise(s, 0.5, 0.0) for s in (0.1, 0.6)])
    rates = {}
    for case, leak, easier in (("null", 0.0, 0.0), ("easier", 0.0, 0.5), ("leak", 1.0, 0.5)):
        alarms = np.zeros(2)
        for seed in range(runs):
            dirty, clean = _simulated(rng, leak, easier)
            beyond = gap(dirty[0] - dirty[1:].mean(0), clean[0] - clean[1:].mean(0), seed)
            alarms += gap(dirty[0], clean[0]).p <= 0.05, beyond.p <= 0.05
            covered += case == "leak" and beyond.low <= truth <= beyond.high
        rates[case] = (alarms / runs).tolist()
    print(f"alarms at 5 %, alone and beyond controls: {rates}; interval covers the true gap in {covered / runs:.3f}")
    assert max(rates["null"]) <= 0.075
    assert rates["easier"][0] > 0.3, "without controls, easy items look like a leak"
    assert rates["easier"][1] <= 0.075
    assert rates["leak"][1] >= 0.75
    assert covered / runs >= 0.9


def test_holm_and_controls_of_several_benchmarks():
    rng = np.random.default_rng(0)
    parts, expected = [], {}
    for number, leak in enumerate((1.5, 0.0)):
        dirty, clean = _simulated(rng, leak, 0.3)
        differences = dirty[0] - dirty[1:].mean(0), clean[0] - clean[1:].mean(0)
        expected[f"b{number}"] = gap(*differences, 5)
        for model, score in zip(("mine", "old", "other"), np.hstack([dirty, clean]), strict=True):
            parts.append(
                pd.DataFrame(
                    {
                        "benchmark": f"b{number}",
                        "model": model,
                        "control": model != "mine",
                        "item_id": np.arange(1319),
                        "score": score,
                        "verdict": np.repeat(["contaminated", "clean"], [40, 1279]),
                        "overlap": 0.0,
                    }
                )  # fmt: skip
            )
    found = measure(_matched(pd.concat(parts).sample(frac=1, random_state=1)), seed=5)
    mine = [found[name][[e.model for e in found[name]].index("mine")] for name in expected]
    assert [e.versus_control.value for e in mine] == pytest.approx([g.value for g in expected.values()])
    np.testing.assert_allclose(
        [e.p_holm for e in mine], multipletests([g.p for g in expected.values()], method="holm")[1], atol=0.02
    )
    assert mine[0].reading.endswith("the leak raises this score.")
    assert [e.standing for e in mine] == ["raised", "stands"] and mine[1].reading.endswith("two decimals would show.")
    assert mine[0].controls == ("old", "other") or mine[0].controls == ("other", "old")
    alone = measure(_matched(pd.concat(parts[:1])), seed=5)["b0"][0]
    assert alone.versus_control is None and "without control models they may simply be easier" in alone.reading


def _rise(skill: float, easier: float, leak: float) -> float:
    return float(norm.cdf((skill + easier + leak) / np.sqrt(2)) - norm.cdf(skill / np.sqrt(2)))


def test_permutation_of_graded_scores_agrees_with_all_permutations():
    rng = np.random.default_rng(1)
    dirty, clean = np.array([0.5, 1.0, 0.75]), np.array([0.0, 0.25, 0.5, 0.5, 1.0, 0.2])
    pool = np.concatenate([dirty, clean])
    exact = np.mean([sum(draw) >= dirty.sum() - 1e-9 for draw in combinations(pool, 3)])
    assert permutation_p(dirty, clean, rng) == pytest.approx(exact, abs=0.015)
    means = bootstrap_means(pool, rng)
    assert means.std() == pytest.approx(pool.std() / 3, rel=0.05) and means.mean() == pytest.approx(
        pool.mean(), abs=0.01
    )


def test_untestable_items_count_in_the_whole_and_nowhere_else():
    verdicts = ["contaminated"] * 30 + ["suspect"] * 5 + ["clean"] * 30 + ["untestable"] * 10
    rows = pd.DataFrame(
        {"benchmark": "b", "model": "m", "control": False, "item_id": range(75), "verdict": verdicts,
         "score": [1.0] * 30 + [0.0] * 5 + [0.5] * 30 + [1.0] * 10, "overlap": 0.0}
    )  # fmt: skip
    found = measure(_matched(rows))["b"][0]
    assert {name: e.n for name, e in found.subsets.items()} == {
        "whole": 75, "clean": 30, "dirty": 30, "not_clean": 35, "not_dirty": 35, "untestable": 10,
    }  # fmt: skip
    assert not found.binary and found.gap is not None and found.gap.value == 0.5
    few = measure(_matched(rows[1:]))["b"][0]
    assert few.gap is None and few.reading.startswith("Not enough items to test the gap: 29 contaminated")
    assert estimate(np.zeros(0)).value is None and contaminated_share(0, 0)["value"] is None


def test_sweep_agrees_with_a_loop():
    rng = np.random.default_rng(3)
    items = _items(200, verdicts=["clean"] * 190 + ["untestable"] * 10)
    items["score"] = np.float32(rng.choice([0, 0.2, 0.5, 0.8, 0.81, 0.9, 1.0], 200))
    for graded in (False, True):
        score = rng.random(200) if graded else (rng.random(200) < 0.6).astype(float)
        rows = pd.DataFrame(
            {"benchmark": "gsm8k", "model": "m", "control": False, "item_id": items["item_id"], "score": score,
             "verdict": items["verdict"], "overlap": items["score"].astype(float).round(6)}
        )  # fmt: skip
        table = sweep(items, _matched(rows)).to_pandas()
        assert list(table["model"].isna()) == [True] * len(THRESHOLDS) + [False] * len(THRESHOLDS)
        kept, overlap = score[:190], items["score"].to_numpy(float).round(6)[:190]
        for row in table[table["model"] == "m"].itertuples():
            clean = kept[overlap < row.threshold]
            assert (row.flagged, row.n_clean) == (190 - len(clean), len(clean))
            assert row.score_whole == pytest.approx(kept.mean())
            assert row.score_clean == pytest.approx(clean.mean()) and row.low <= row.score_clean <= row.high
            assert row.gain == pytest.approx(kept.mean() - clean.mean()) and row.gain_low <= row.gain <= row.gain_high
            if not graded:
                share = row.flagged / 190
                np.testing.assert_allclose(
                    (row.gain_low / share, row.gain_high / share),
                    newcombe(kept.sum() - clean.sum(), row.flagged, clean.sum(), len(clean)),
                )


# Which score to trust.


def _audit(
    verdicts: dict[str, int],
    scores: tuple[float, float, float] | None = None,
    scored: tuple[int, int, int] | None = None,
    **corpus: Any,
) -> dict[str, Any]:
    """scored: items with a score: whole, clean, contaminated; all without it."""
    full = {"contaminated": 0, "suspect": 0, "clean": 0, "untestable": 0, **verdicts}
    n = sum(full.values())
    model = []
    if scores:
        counts = scored or (n, full["clean"], full["contaminated"])
        sizes = dict(zip(("whole", "clean", "dirty"), counts, strict=True))
        subsets = {
            name: {"n": size, "value": value, "low": value - 0.03, "high": value + 0.03}
            for (name, size), value in zip(sizes.items(), scores, strict=True)
        }
        model = [{"model": "m", "control": False, "subsets": subsets}]
    benchmark = {"name": "gsm8k", "items": n, "eligible": n - full["untestable"], "verdicts": full, "scores": model}
    return {
        "corpus": {"records": 1000, "documents": 1000, "problems": [], **corpus},
        "benchmarks": [benchmark],
    }


NO_CONTROL = "by the leak or by their ease: a control model (--control) would tell"
LOST = {"problems": [{"source": "a", "place": "line 3", "what": "half a line", "records": 2, "gap": True}]}
FEW = {"records": 10**6, **LOST}
BLANK = {"problems": [{**LOST["problems"][0], "gap": False}]}
TORN = {"problems": [{**LOST["problems"][0], "records": 0}]}


@pytest.mark.parametrize(
    ("audit", "level", "sentence"),
    [
        (
            _audit({"contaminated": 40, "clean": 1279}, (0.67, 0.61, 0.93)),
            "fail",
            "Report both scores of gsm8k: 0.67 [0.64, 0.70] on all 1,319 items, 0.61 [0.58, 0.64] on the 1,279 clean "
            f"items. The 40 contaminated items score 0.93, {NO_CONTROL}.",
        ),
        (
            _audit({"contaminated": 40, "clean": 1279}, (0.667, 0.665, 0.75)),
            "fail",
            "Report both scores of gsm8k: 0.667 [0.637, 0.697] on all 1,319 items, 0.665 [0.635, 0.695] on the 1,279 "
            f"clean items. The 40 contaminated items score 0.750, {NO_CONTROL}.",
        ),
        (
            _audit({"contaminated": 1, "clean": 9}, (0.6, 0.5, 1.0)),
            "fail",
            "Trust no score of gsm8k: 1 item is contaminated, which leaves 9 clean items.",
        ),
        (
            _audit({"contaminated": 2, "clean": 50, "untestable": 3}, **LOST),
            "fail",
            "Do not report gsm8k as it stands: 2 of its 52 testable items are contaminated. Score its 50 clean items "
            "alone. More may be hidden: 2 records of 1,000 could not be read.",
        ),
        (
            _audit({"suspect": 3, "clean": 97}, (0.67, 0.66, 0)),
            "warn",
            "Look at the suspects before you trust a score: 3 items of gsm8k are suspect, none contaminated: "
            "0.67 [0.64, 0.70] on all, 0.66 [0.63, 0.69] without them.",
        ),
        (
            _audit({"clean": 90, "untestable": 10}, (0.67, 0.67, 0)),
            "pass",
            "Trust 0.67 [0.64, 0.70] on gsm8k: no match found in 1,000 documents for its 90 testable items.",
        ),
        (
            _audit({"clean": 1}),
            "pass",
            "gsm8k may be scored: no match found in 1,000 documents for its 1 testable item.",
        ),
        (_audit({"clean": 90}, documents=0), "unknown", "Trust no score of gsm8k yet: no document was read."),
        (_audit({"suspect": 9}, **LOST), "unknown",
         "Trust no score of gsm8k yet: 2 records of 1,000 could not be read."),
        (_audit({"clean": 9}, **FEW), "pass",
         "gsm8k may be scored: no match found in 1,000 documents for its 9 testable items; 2 records could not be "
         "read."),
        (_audit({"clean": 9}, **BLANK), "pass",
         "gsm8k may be scored: no match found in 1,000 documents for its 9 testable items."),
        (_audit({"clean": 9}, **TORN), "unknown",
         "Trust no score of gsm8k yet: text in 1 shard was not searched."),
        (_audit({"clean": 9}, lost_slices=1), "unknown",
         "Trust no score of gsm8k yet: 1 part of the corpus was not scanned."),
        (_audit({"clean": 200}, (1.0, 1.0, 0), (60, 60, 0)), "pass",
         "Trust 1.00 [0.97, 1.03] on gsm8k (60 of 200 items scored): no match found in 1,000 documents for its 200 "
         "testable items."),
        (_audit({"suspect": 3, "clean": 97}, (0.67, 0.66, 0), (60, 58, 0)), "warn",
         "Look at the suspects before you trust a score: 3 items of gsm8k are suspect, none contaminated: "
         "0.67 [0.64, 0.70] on all, 0.66 [0.63, 0.69] without them (60 of 100 items scored)."),
        (_audit({"contaminated": 5, "clean": 195}, (0.6, 0.5, 1.0), (20, 15, 5)), "fail",
         "Trust no score of gsm8k: 5 items are contaminated, which leaves 15 scored clean items (20 of 200 items "
         "scored)."),
        (_audit({"contaminated": 40, "clean": 160}, (0.67, 0.61, 0.93), (60, 40, 20)), "fail",
         "Report both scores of gsm8k: 0.67 [0.64, 0.70] on all that are scored, 0.61 [0.58, 0.64] on the 40 clean "
         "items (60 of 200 items scored). The 40 contaminated items score 0.93 (20 of them scored), "
         f"{NO_CONTROL}."),
        (_audit({"contaminated": 40, "clean": 160}, (0.6, 0.6, 0.6), (60, 40, 20)), "fail",
         "Trust 0.600 [0.570, 0.630] on gsm8k (40 clean items; 60 of 200 items scored), as on all that are scored: "
         "the 40 contaminated items score 0.600 (20 of them scored)."),
        (_audit({}), "unknown", "Trust no score of gsm8k yet: it holds no item."),
        (_audit({"clean": 79, "untestable": 21}), "unknown",
         "Trust no score of gsm8k yet: 21 of its 100 items are too short or too common to test."),
        (_audit({"contaminated": 5}), "fail",
         "Do not report gsm8k as it stands: 5 of its 5 testable items are contaminated. No clean item is left."),
        (_audit({"contaminated": 40, "clean": 160}, (0.595, 0.494, 1.0)), "fail",
         "Report both scores of gsm8k: 0.60 [0.57, 0.63] on all 200 items, 0.49 [0.46, 0.52] on the 160 clean items. "
         f"The 40 contaminated items score 1.00, {NO_CONTROL}."),
        (_audit({"contaminated": 40, "clean": 160}, (0.0, 0.0, 0.0)), "fail",
         "Trust 0.000 [-0.030, 0.030] on gsm8k (160 clean items), as on all 200 items: the 40 contaminated items "
         "score 0.000."),
        ({"corpus": {"documents": 1}, "benchmarks": []}, "unknown",
         "No benchmark was given, so there is no score to trust or to doubt."),
    ],
)  # fmt: skip
def test_the_decision_is_one_plain_sentence(audit: dict[str, Any], level: str, sentence: str):
    decision = decide(audit)
    assert (decision.level, decision.sentence) == (level, sentence)


@pytest.mark.parametrize(("standing", "beyond", "trusted", "sentence"), [
    ("raised", (0.2, 0.1, 0.3), "clean",
     "Trust 0.61 [0.58, 0.64] on gsm8k (160 clean items), not 0.67: the 40 contaminated items score 0.93, +20.0 points "
     "[+10.0, +30.0] beyond the control models."),
    ("stands", (0.0, -0.04, 0.04), "whole",
     "Trust 0.67 [0.64, 0.70] on gsm8k (all 200 items): the 40 contaminated items score 0.93, +0.0 points [-4.0, +4.0] "
     "beyond the control models, which gain as much on them: the leak can have moved the whole by 0.8 points at "
     "most."),
    ("stands", (-0.1, -0.14, -0.04), "whole",
     "Trust 0.67 [0.64, 0.70] on gsm8k (all 200 items): the 40 contaminated items score 0.93, -10.0 points "
     "[-14.0, -4.0] beyond the control models, which gain more on them: the leak can have moved the whole by 0.0 "
     "points at most."),
    ("open", (0.1, -0.04, 0.24), "",
     "Report both scores of gsm8k: 0.67 [0.64, 0.70] on all 200 items, 0.61 [0.58, 0.64] on the 160 clean items. The "
     "40 contaminated items score 0.93, +10.0 points [-4.0, +24.0] beyond the control models: that does not tell the "
     "leak from their ease."),
    ("few", None, "",
     "Report both scores of gsm8k: 0.67 [0.64, 0.70] on all 200 items, 0.61 [0.58, 0.64] on the 160 clean items. The "
     "40 contaminated items score 0.93, too few to hold against the control models: 30 contaminated and 30 clean are "
     "needed."),
    ("no controls", None, "",
     "Report both scores of gsm8k: 0.67 [0.64, 0.70] on all 200 items, 0.61 [0.58, 0.64] on the 160 clean items. The "
     f"40 contaminated items score 0.93, {NO_CONTROL}."),
])
def test_the_headline_rests_on_what_the_controls_gained(
    standing: str, beyond: tuple[float, float, float] | None, trusted: str, sentence: str
):
    audit = _audit({"contaminated": 40, "clean": 160}, (0.67, 0.61, 0.93))
    gained = dict(zip(("value", "low", "high"), beyond, strict=True)) if beyond else None
    audit["benchmarks"][0]["scores"][0] |= {"standing": standing, "versus_control": gained}
    decision = decide(audit)
    assert (decision.level, decision.sentence, decision.trusted) == ("fail", sentence, trusted)


@pytest.mark.parametrize(("case", "allowed"), [
    ("honest, items as hard as others", {"raised": 0.05}),
    ("honest, easy items, controls alike", {"raised": 0.05}),
    ("honest and weak, easy items, strong controls", {"raised": 0.05}),
    ("honest and strong, easy items, weak controls", {"raised": 0.05}),
    ("contaminated, items as hard as others", {"stands": 0.05}),
    ("contaminated, easy items", {"stands": 0.05}),
    ("contaminated and weak, easy items, strong controls", {"stands": 0.05}),
])
def test_no_model_of_known_truth_is_told_the_opposite(
    case: str, allowed: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(effect, "RESAMPLES", 499)
    rates = standings(CASES[case], runs=60)
    print(f"{case}: {rates}")
    assert all(rates.get(standing, 0.0) <= most for standing, most in allowed.items())


def test_the_worst_benchmark_speaks_and_the_others_are_named():
    audit = _audit({"clean": 100})
    for name, verdicts in (("b", {"suspect": 1, "clean": 9}), ("c", {"contaminated": 1, "clean": 99}),
                           ("d", {"contaminated": 5, "clean": 95})):  # fmt: skip
        audit["benchmarks"].append(_audit(verdicts)["benchmarks"][0] | {"name": name})
    decision = decide(audit)
    assert decision.level == "fail" and decision.sentence.startswith("Do not report d ")
    assert decision.sentence.endswith("Also contaminated: c. Suspects only: b. No match found: gsm8k.")
    scored = _audit({"contaminated": 1, "clean": 99}, (0.67, 0.61, 0.93))["benchmarks"][0] | {"name": "e"}
    scored["scores"][0] |= {"standing": "raised", "versus_control": {"value": 0.1, "low": 0.02, "high": 0.2}}
    audit["benchmarks"].append(scored)
    assert decide(audit).sentence.startswith("Trust 0.61 ")


def test_unread_rows_of_a_benchmark_are_said():
    audit = _audit({"clean": 90})
    lost = {"source": "b", "place": "line 3", "what": "no JSON", "records": 2, "gap": True}
    audit["benchmarks"][0]["problems"] = [lost]
    assert decide(audit).sentence.endswith("90 testable items; 2 rows of the benchmark could not be read.")
    audit["benchmarks"][0]["problems"] = [lost | {"records": 30}]
    assert decide(audit).level == "unknown"


# Score files as spreadsheets and evaluations leave them.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"item_id,score\n0,1\n,\n1,0\n , \n\n", {"0": 1.0, "1": 0.0}),
        (b"item_id,score,,\r\n0,1,,\r\n,,,\r\n1,0,,\r\n", {"0": 1.0, "1": 0.0}),
        (b"\xef\xbb\xbfID, Score \n0,True\n1,FALSE\n", {"0": 1.0, "1": 0.0}),
        ("item_id\tscore\n0\t1\n1\t0\n".encode("utf-16"), {"0": 1.0, "1": 0.0}),
        (b"sep=;\nitem_id;score\n0;0,5\n1;0\n", {"0": 0.5, "1": 0.0}),
        (b"item_id;score\n0;0,5\n1;0\n", {"0": 0.5, "1": 0.0}),
        (b"item_id,score\r0,1\r1,0\r", {"0": 1.0, "1": 0.0}),
        (b'"item_id","score"\n"0","50 %"\n"1","pass"\n', {"0": 0.5, "1": 1.0}),
        (b"item_id,score\n0,nan\n1,N/A\n2,1\n", {"2": 1.0}),
        (b"item_id,score\n0,1\n0,0\n1,1\n", {"0": 0.5, "1": 1.0}),
    ],
)
def test_score_tables_are_read_as_spreadsheets_write_them(
    tmp_path: Path, content: bytes, expected: dict[str, float]
) -> None:
    (tmp_path / "mine.csv").write_bytes(content)
    rows = read_scores([tmp_path / "mine.csv"]).rows
    assert dict(zip(rows["item_id"], rows["score"], strict=True)) == expected


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "item_id,score\n,1\n", "line 2 has a score but no item_id"),
        ("a.csv", "item_id,score\na,b,1\n", "line 2 has more cells than the header"),
        ("a.csv", "item_id,score\n0,inf\n", "not between 0 and 1"),
        ("a.csv", "item_id,score\n,\n", "is empty"),
        ("a.json", '{"0": ' + "9" * 400 + "}", "is no score"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.jsonl", '{"id": 1, "score": ' + "9" * 5000 + "}", "line 1 is not JSON"),
    ],
)
def test_score_files_that_say_nothing_clear_are_refused(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=says):
        read_scores([tmp_path / name])


def test_models_and_paths_may_hold_equal_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pretrained=m"
    folder.mkdir()
    for path in (folder / "gsm8k.json", tmp_path / "gsm8k.json"):
        path.write_text(json.dumps(SCORES))
    for spec, model in (
        ("pretrained=m/gsm8k.json", "gsm8k"),
        ("pretrained=m/*.json", "gsm8k"),
        ("mine=pretrained=m/gsm8k.json", "mine"),
        ("pretrained=org/m,dtype=bf16=gsm8k.json", "pretrained=org/m,dtype=bf16"),
        ("org/m=gsm8k.json", "org/m"),
        ("mine=gsm8k.json", "mine"),
    ):
        assert set(read_scores([spec]).rows["model"]) == {model}, spec
    with pytest.raises(UsageError, match=r"no score file gone\.json"):
        read_scores(["mine=gone.json"])


def test_items_with_their_scores_in_objects_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"q1": {"score": 1, "text": "x"}, "q2": {"score": 0}}))
    rows = read_scores([tmp_path / "a.json"]).rows
    assert rows[["item_id", "score"]].values.tolist() == [["q1", 1.0], ["q2", 0.0]]
