"""Clusters of lost items: exact tests beside scipy and statsmodels, nulls, and planted kinds of items."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom
from statsmodels.stats.multitest import multipletests

from checks.evals.clusters import clusters_of_rows, error_clusters
from checks.evals.lift import benjamini_hochberg, lift_p
from checks.evals.texts import alike, first_of_copies
from tests.review.staged import sheet, with_items
from trainvitals.cli import cli
from trainvitals.evals import read_evals, write_sheets

KINDS = {"cooking": "bake the {} with butter and salt in an oven for dinner number {}",
         "law": "the court of appeal held that the {} owes damages under section {}",
         "space": "a probe orbits the {} planet and sends photographs of crater {}",
         "sums": "how many apples are left when {} of them are taken from a basket of {}"}  # fmt: skip
NOUNS = ("green old large tiny famous broken late second golden quiet rapid distant plain smooth lonely crowded dusty "
         "hidden frozen ancient").split()  # fmt: skip


def texts(rng: np.random.Generator, n: int) -> tuple[list[str], list[str]]:
    """Texts and their kinds."""
    kinds = rng.choice(list(KINDS), n)
    words = [[" ".join(rng.choice(NOUNS, 3)) for _ in range(3)] for _ in kinds]
    return [f"{a} {KINDS[k].format(b, rng.integers(10, 10_000))} {c}"
            for k, (a, b, c) in zip(kinds, words, strict=True)], list(kinds)  # fmt: skip


def rows(rng: np.random.Generator, n: int = 400, churn: float = 0.08, groups: int = 12) -> pd.DataFrame:
    right = rng.random(n) < 0.6
    flips = rng.random(n) < churn
    blank = np.full(n, "", object)
    return pd.DataFrame({"task": rng.choice(["a", "b"], n), "item": np.arange(n).astype(str), "right": right,
                         "now": right ^ flips, "group": rng.integers(0, groups, n).astype(str), "cluster": blank,
                         "tool": blank, "text": blank, "before": blank, "after": blank})  # fmt: skip


@given(st.integers(0, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_one_stratum_is_scipys_and_several_are_their_sum(k, n, marked, more):
    items = n + marked + more
    k = min(k, n, marked)
    assert lift_p([(k, n, marked, items)]) == pytest.approx(hypergeom.sf(k - 1, items, marked, n), abs=1e-9)
    drawn = np.random.default_rng(0)
    both = lift_p([(k, n, marked, items), (1, 5, 4, 20)])
    total = drawn.hypergeometric(marked, items - marked, n, 20_000) + drawn.hypergeometric(4, 16, 5, 20_000)
    assert both == pytest.approx((total >= k + 1).mean(), abs=0.02)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=40))
def test_the_false_discovery_rate_is_that_of_statsmodels(p):
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], rtol=1e-9)


def test_unchanged_models_have_no_clusters_even_where_some_items_flip_more():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(150):
        table = rows(rng)
        # Items of two groups flip five times as often, as many of them either way.
        restless = table["group"].isin(["0", "1"]) & (rng.random(len(table)) < 0.4)
        share = table["right"].mean()
        table["now"] = np.where(restless, rng.random(len(table)) < share, table["now"])
        false += bool(clusters_of_rows(table, {"a": 200, "b": 200})[0])
    print(f"{false} of 150")
    assert false / 150 <= 0.05


def test_unchanged_models_have_no_clusters_of_text(monkeypatch):
    rng = np.random.default_rng(2)
    words, _ = texts(rng, 300)
    groups = alike(words)
    monkeypatch.setattr("checks.evals.clusters.alike", lambda _: groups)
    false = 0
    for _ in range(80):
        table = rows(rng, 300)
        table["text"] = words
        false += bool(clusters_of_rows(table, {"a": 150, "b": 150})[0])
    print(f"{false} of 80")
    assert false / 80 <= 0.05 and len(groups.names) >= 4


def staged(folder, told: bool):
    """Two checkpoints; the second has lost half of the sums of `qa`. `told`: whether a group says which they are."""
    rng = np.random.default_rng(7)
    words, kinds = texts(rng, 500)
    sheets = []
    for task in ("qa", "other"):
        before = (rng.random(500) < 0.8).astype(float)
        after = np.where(rng.random(500) < 0.04, 1 - before, before)
        if task == "qa":
            after = np.where((np.array(kinds) == "sums") & (rng.random(500) < 0.5), 0.0, after)
        for step, values in ((1, before), (2, after)):
            sheets.append(with_items(sheet(task, step, values), text=words, group=kinds if told else None))
    write_sheets(folder, sheets)
    return read_evals(folder), dict(zip([f"qa-{i}" for i in range(500)], kinds, strict=True))


@pytest.mark.parametrize("told", [True, False])
def test_a_kind_that_was_lost_is_named_by_metadata_or_by_its_words(tmp_path, told):
    evals, kinds = staged(tmp_path, told)
    found = error_clusters(evals, "step-1", "step-2")
    best = found.clusters[0] if told else next(c for c in found.clusters if c.facet == "text")
    assert best.tasks == ("other", "qa") or best.tasks == ("qa",)
    of_qa = [kinds[lost.item] for lost in best.lost_items if lost.task == "qa"]
    assert of_qa.count("sums") / len(of_qa) > 0.9 and best.lift > 3 and best.q < 1e-4
    if told:
        assert best.name == "group: sums" or "apples" in best.name
    else:
        assert {"apples", "basket", "taken"} & set(best.value.replace(",", " ").split())
    assert not any("law" in c.name or "court" in c.name for c in found.clusters)
    assert best.gain == pytest.approx(sum(best.task_gain.values()) / 2)


def test_the_work_list_has_every_lost_item_once_and_the_costliest_first(tmp_path):
    staged(tmp_path, True)
    done = CliRunner().invoke(cli, ["evals", "clusters", str(tmp_path), "--json", "--out", str(tmp_path / "w.csv")])
    assert done.exit_code == 1
    answer = json.loads(done.stdout)
    with (tmp_path / "w.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    lost = {(x["task"], x["item"]) for c in answer["clusters"] for x in c["lost_items"]}
    assert {(row["task"], row["item"]) for row in listed} == lost and len(listed) == len(lost)
    gains = [float(row["gain_mean_points"]) for row in listed]
    assert gains == sorted(gains, reverse=True) and "right" in listed[0]["look_at"]
    again = CliRunner().invoke(cli, ["evals", "clusters", str(tmp_path), "--from", "step-1"])
    assert again.exit_code == 1 and "1. " in again.output


def test_copies_count_once():
    long = " ".join(NOUNS)
    assert first_of_copies([long, "x", long.upper(), long + ".", "", "", "y"]).tolist() == [0, 1, 0, 0, 4, 5, 6]


def test_groups_of_texts_are_the_kinds():
    words, kinds = texts(np.random.default_rng(3), 400)
    groups = alike(words)
    table = pd.crosstab(np.array(kinds), groups.labels)
    inside = table.drop(columns=-1, errors="ignore")
    assert inside.max().sum() / inside.to_numpy().sum() > 0.95 and inside.to_numpy().sum() > 300
    assert alike(["a b"] * 10) is None and alike([""] * 500) is None
