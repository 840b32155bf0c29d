"""Results of evaluations: the store, every importer on files that the harnesses really wrote, and the comparison."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar

from checks.evals.compare import compare, mid_p
from checks.evals.noise import Noise, noise_of
from checks.evals.paired import paired_difference
from collectors.importers.evals.door import results_at
from collectors.importers.evals.found import Asked, step_in
from tests.review.staged import sheet, with_items
from trainvitals.cli import cli
from trainvitals.errors import UsageError
from trainvitals.evals import COLUMNS, read_evals, write_sheets
from trainvitals.evals.files import KEY, matrix

DATA = Path(__file__).parents[3] / "shared" / "data" / "evals"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the result files are not at {DATA}")


def run(*args: object):
    return CliRunner().invoke(cli, [str(a) for a in args], catch_exceptions=False)


def imported(path, run_folder, *more):
    done = run("evals", "import", path, "--run", run_folder, *more)
    assert done.exit_code == 0, done.output
    return read_evals(run_folder)


# -- the store ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    one = sheet("qa", 100, [1, 0, np.nan, 1])
    write_sheets(tmp_path, [one, sheet("code", 100, [0.5] * 3), sheet("qa", 200, [1, 1, 1, 0])])
    evals = read_evals(tmp_path)
    assert evals.tasks == ["code", "qa"] and evals.checkpoints == ["step-100", "step-200"] and not evals.problems
    back = evals.sheet("qa", "step-100")
    assert back.facts == one.facts and list(back.items.columns) == list(COLUMNS)
    np.testing.assert_array_equal(back.items["score"], [1, 0, np.nan, 1])
    assert evals.sheet("code", "step-200") is None
    assert matrix(evals).loc["step-200", "qa"] == 0.75


def test_the_same_results_again_are_the_same_file(tmp_path):
    assert write_sheets(tmp_path, [sheet("qa", 1, [1, 0])]) == write_sheets(tmp_path, [sheet("qa", 1, [1, 0])])
    assert len(list((tmp_path / "evals").iterdir())) == 1


def test_of_two_measurements_the_fuller_one_is_read(tmp_path):
    for scores in ([1] * 40, [0] * 5):
        write_sheets(tmp_path, [sheet("qa", 1, scores)])
    assert len(read_evals(tmp_path).sheet("qa", "step-1").items) == 40


@given(cut=st.integers(0, 4_000), flip=st.integers(0, 4_000))
def test_a_damaged_file_is_a_problem_by_name(tmp_path_factory, cut, flip):
    folder = tmp_path_factory.mktemp("damaged")
    (path,) = write_sheets(folder, [sheet("qa", 1, [1, 0, 1])])
    data = bytearray((folder / path).read_bytes())
    data[flip % len(data)] ^= 0x55
    (folder / path).write_bytes(bytes(data[: max(len(data) - cut, 0)]))
    evals = read_evals(folder)
    for task in evals.tasks:
        evals.sheet(task, evals.checkpoints[0])
    if cut:
        assert not evals.tasks and path in evals.problems[0]


def test_a_damaged_result_is_not_told_as_one_that_was_not_asked(tmp_path):
    paths = [write_sheets(tmp_path, [sheet(task, step, np.arange(600) % 2)])[0]
             for task, step in (("qa", 1), ("qa", 2), ("code", 1), ("code", 2), ("math", 1))]  # fmt: skip
    body = bytearray((tmp_path / paths[1]).read_bytes())
    body[4:2_000] = bytes(1_996)
    (tmp_path / paths[1]).write_bytes(body)
    evals = read_evals(tmp_path)
    told = {c.task: c.reason for c in compare(evals, "step-1", "step-2")}
    assert told["qa"] == f"step-2 has a result that cannot be read ({paths[1]})." and evals.problems
    assert told["math"] == "step-2 was not asked."
    (tmp_path / paths[1]).write_bytes(b"PAR1")
    told = {c.task: c.reason for c in compare(read_evals(tmp_path), "step-1", "step-2")}
    assert told["math"] == f"step-2 may have been asked: {paths[1]} cannot be read."


@pytest.mark.parametrize(("part", "wrong"), [
    ("facts", {"step": "9"}), ("facts", {"n_shot": True}), ("facts", {"chance": float("nan")}), ("facts", {"task": 3}),
    ("facts", {"family": "\ud800"}), ("facts", {"items": 1}), ("facts", {"kind": "x"}), ("facts", {"step": 10**30}),
    ("summary", {"rows": -1}), ("summary", {"items": 9}), ("summary", {"rows": 10**9}), ("summary", {"time": "x"}),
    ("summary", {"mean": float("inf")})])  # fmt: skip
def test_a_file_with_a_wrong_fact_or_count_is_a_problem_by_name(tmp_path, part, wrong):
    (path,) = write_sheets(tmp_path, [sheet("qa", 1, [1, 0, 1])])
    table = pq.read_table(tmp_path / path)
    head = json.loads(table.schema.metadata[KEY])
    head["sheets"][0][part] |= wrong
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(head).encode()}), tmp_path / path)
    evals = read_evals(tmp_path)
    assert not evals.tasks and evals.problems[0].startswith(f"{path} cannot be read")


# -- importers ---------------------------------------------------------------------------------------------------------


@needs_data
def test_lm_eval_as_it_really_writes(tmp_path):
    evals = imported(DATA / "lm_eval_tiny", tmp_path)
    assert evals.checkpoints == ["step-80", "step-110"]
    for step, scores in (("step-80", (5 / 14, 4 / 10)), ("step-110", (8 / 14, 5 / 10))):
        for task, mean in zip(("tiny_mc_color", "tiny_mc_place"), scores, strict=True):
            one = evals.sheet(task, step)
            # A later run asked 5 items only: the whole one counts. Repeated documents are items of their own.
            assert len(one.items) == one.items["item"].nunique() and one.items["score"].mean() == pytest.approx(mean)
            assert one.chance == pytest.approx(0.25) and one.n_shot == 0 and one.metric == "acc"
            assert one.items["cluster"].notna().all()
    sums = evals.sheet("tiny_sums@maj@3", "step-80")
    assert sums.filter == "maj@3" and len(sums.items) == 12 and sums.n_shot == 2
    bits = evals.sheet("tiny_text:bits_per_byte", "step-110")
    assert not bits.higher_is_better and len(bits.items) == 6
    told = json.loads(next((DATA / "lm_eval_tiny").glob("*step110/results_*39.875876.json")).read_text())["results"]
    assert bits.items["score"].mean() == pytest.approx(told["tiny_text"]["bits_per_byte,none"])
    words = evals.sheet("tiny_text", "step-110")
    assert words.metric == "log_word_perplexity" and not words.higher_is_better
    assert np.exp(words.items["score"].mean()) == pytest.approx(told["tiny_text"]["word_perplexity,none"])
    found = {c.task: c for c in compare(evals, "step-80", "step-110")}
    assert found["tiny_text"].level == "unknown"  # six items


def test_lm_eval_pairs_are_no_quotients_and_likelihoods_are_losses(tmp_path):
    """Pairs of labels have no score of an item; a log-likelihood under the name of a perplexity is turned round."""
    (tmp_path / "step7").mkdir()
    rows = [{"doc_id": i, "doc": {}, "filter": "none", "doc_hash": str(i), "metrics": ["mcc", "perplexity"],
             "mcc": [i % 2, 1], "perplexity": -0.5 - i} for i in range(4)]  # fmt: skip
    stamp = "2026-01-01T00-00-00.000000"
    (tmp_path / "step7" / f"samples_cola_{stamp}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    results = {"mcc,none": 0.3, "perplexity,none": float(np.exp(2)), "alias": "cola"}
    better = {"mcc": True, "perplexity": False}
    (tmp_path / "step7" / f"results_{stamp}.json").write_text(json.dumps(
        {"results": {"cola": results}, "higher_is_better": {"cola": better}, "config": {}}))  # fmt: skip
    evals = imported(tmp_path / "step7", tmp_path / "run")
    assert not len(evals.sheet("cola", "step-7").items) and evals.sheet("cola", "step-7").aggregate == 0.3
    loss = evals.sheet("cola:log_perplexity", "step-7")
    assert loss.items["score"].mean() == pytest.approx(2.0) and not loss.higher_is_better


@needs_data
def test_old_lm_eval_files_have_scores_and_no_items(tmp_path):
    evals = imported(DATA / "pythia_1.4b_zero_shot", tmp_path)
    assert len(evals.checkpoints) == 27
    told = json.loads(next(DATA.glob("pythia*/*step143000.json")).read_text())["results"]
    for task in ("piqa", "lambada_openai", "wsc"):
        assert matrix(evals).loc["step-143000", task] == pytest.approx(next(iter(told[task].values())))
    assert run("evals", "compare", tmp_path).exit_code == 3


@needs_data
def test_inspect_as_it_really_writes(tmp_path):
    done = run("evals", "import", DATA / "inspect_tiny", DATA / "inspect_logs", "--run", tmp_path)
    assert done.exit_code == 0
    assert "before it was killed" in done.output and "ended in an error" in done.output
    evals = read_evals(tmp_path)
    assert {"step-600", "step-900"} <= set(evals.checkpoints)
    colors = evals.sheet("tiny_colors", "step-600")
    assert len(colors.items) == 16 and set(colors.items["sample"]) == {0, 1} and colors.kind == "workflow"
    assert colors.items["latency_s"].notna().all() and colors.items["tokens_out"].notna().all()
    errors = next(evals.sheet("tiny_errors", c) for c in evals.checkpoints if evals.sheet("tiny_errors", c))
    failed = errors.items[errors.items["error"].notna()]
    assert len(failed) == 1 and failed["score"].isna().all()


def test_events_of_openai_evals(tmp_path):
    lines = [{"spec": {"eval_name": "sums", "completion_fns": ["m-step500"], "run_id": "r"}},
             {"run_id": "r", "sample_id": "a", "type": "match", "data": {"correct": True, "picked": "4"}},
             {"run_id": "r", "event_id": 0, "sample_id": "b", "type": "error", "data": {"message": "timeout"}},
             {"run_id": "r", "event_id": 2, "sample_id": "c", "type": "match", "data": {"correct": False}},
             {"final_report": {"accuracy": 0.5}}]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    evals = imported(tmp_path / "log.jsonl", tmp_path / "run")
    items = evals.sheet("sums", "step-500").items.set_index("item")
    assert items["score"]["a"] == 1 and items["score"]["c"] == 0
    assert np.isnan(items["score"]["b"]) and items["error"]["b"] == "timeout"


def test_a_table_needs_its_columns_and_says_which_there_are(tmp_path):
    pd.DataFrame({"q": ["a", "b"], "points": [1, 0]}).to_csv(tmp_path / "t.csv", index=False)
    done = CliRunner().invoke(cli, ["evals", "import", str(tmp_path / "t.csv"), "--run", str(tmp_path / "r")])
    assert isinstance(done.exception, UsageError) or "no column for the item" in done.output
    evals = imported(tmp_path / "t.csv", tmp_path / "r", "--step", 7, "--columns", "item=q,score=points")
    assert evals.sheet("t", "step-7").items["score"].to_list() == [1, 0]


@pytest.mark.parametrize("name", ["results_x.json", "x.eval", "x.jsonl", "x.csv", "x.parquet"])
@pytest.mark.parametrize("data", [b"", b"{", b"\x00\xff" * 50, b'{"results": 3}', b"PK\x03\x04", b"[1,2"])
def test_broken_files_are_one_sentence(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    try:
        told = [found for _, _, found in results_at(tmp_path / name, Asked(step=1))]
    except UsageError as error:
        told = [error]
    assert all(isinstance(f, UsageError) and len(str(f).splitlines()) == 1 or not f.sheets for f in told)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("collectors.importers.evals.zipped.MOST_MEMBER", 1000)
    with zipfile.ZipFile(tmp_path / "x.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", " " * 1_000_000)
    ((_, _, found),) = results_at(tmp_path / "x.eval", Asked(step=1))
    assert isinstance(found, UsageError) and "more than 1,000 bytes" in str(found)


@pytest.mark.parametrize(("name", "step"), [("ckpt__tiny-llama-step80", 80), ("out/checkpoint-1500", 1500),
                                            ("global_step_000200", 200), ("llama-7b", None), ("step1-step2", None),
                                            ("step10/eval", 10)])
def test_the_step_of_a_path(name, step):
    assert step_in(name) == step


# -- comparison --------------------------------------------------------------------------------------------------------


@needs_data
def test_the_three_standard_errors_of_a_published_run(tmp_path):
    for step in (42930, 45315):
        imported(DATA / "gemstone_1280x36_item_losses.csv.gz", tmp_path, "--step", step, "--lower-is-better",
                 "--columns", f"item=subtask+item,score=step_000{step},cluster=subtask")  # fmt: skip
    evals = read_evals(tmp_path)
    mmlu = next(c for c in compare(evals, "step-42930", "step-45315") if c.task == "mmlu")
    plain = evals.sheet("mmlu", "step-45315").items["score"] - evals.sheet("mmlu", "step-42930").items["score"]
    assert mmlu.se_unpaired == pytest.approx(0.0223, abs=1e-4)
    assert plain.std(ddof=1) / np.sqrt(len(plain)) == pytest.approx(0.0048, abs=1e-4)
    assert mmlu.se == pytest.approx(0.0288, abs=5e-4) and mmlu.se_kind == "clustered" and mmlu.clusters == 57
    fit = sm.OLS(plain, np.ones(len(plain))).fit(
        cov_type="cluster", cov_kwds={"groups": pd.factorize(evals.sheet("mmlu", "step-42930").items["cluster"])[0]})
    assert mmlu.se == pytest.approx(float(fit.bse.iloc[0]), rel=0.01)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mid_p_is_that_of_the_exact_test_less_half_a_point(lost, won):
    exact = mcnemar([[0, lost], [won, 0]], exact=True).pvalue if lost + won else 1.0
    assert mid_p(lost, won) <= exact + 1e-12
    expected = 1.0 if lost == won else exact - binom.pmf(min(lost, won), lost + won, 0.5)
    assert mid_p(lost, won) == pytest.approx(expected)


@needs_data
def test_the_noise_of_checkpoints_is_that_of_the_published_course(tmp_path):
    evals = imported(DATA / "pythia_1.4b_zero_shot", tmp_path)
    for task, sd in (("piqa", 0.00365), ("sciq", 0.00468), ("arc_easy", 0.00490), ("winogrande", 0.00446)):
        assert noise_of(evals, task, "step-143000").sd == pytest.approx(sd, abs=2e-5)
    assert noise_of(evals, "piqa", evals.checkpoints[2]) is None


def test_the_noise_of_checkpoints_is_found_again():
    rng = np.random.default_rng(8)
    found = []
    for _ in range(300):
        means = 0.7 + 0.1 * np.linspace(0, 1, 12) ** 0.5 + 0.01 * rng.standard_normal(12)
        summaries = [SimpleNamespace(task="t", step=i, mean=m, checkpoint=str(i)) for i, m in enumerate(means)]
        found.append(noise_of(SimpleNamespace(of_task=lambda _, s=summaries: s, steps={"11": 11}), "t", "11").sd)
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.01, rel=0.15)


def test_noise_that_items_explain_is_counted_once():
    before, after = (np.random.default_rng(3).random((2, 1_000)) < 0.6).astype(float)
    plain = paired_difference(before, after)
    assert paired_difference(before, after, None, Noise(plain.se / 2, 7)).se == plain.se
    wide = paired_difference(before, after, None, Noise(2 * plain.se, 7))
    assert wide.se == pytest.approx(np.sqrt(2) * 2 * plain.se) and 7 < wide.df < 12


def test_simulated_nulls_with_clusters_stay_at_their_level():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(600):
        clusters = np.repeat(np.arange(40), rng.integers(2, 12, 40))
        shock = rng.normal(0, 0.05, 40)[clusters]
        before = (rng.random(len(clusters)) < 0.6).astype(float)
        after = np.where(rng.random(len(clusters)) < 0.2, rng.random(len(clusters)) < 0.6 + shock, before).astype(float)
        wrong += paired_difference(before, after, clusters).p_worse <= 0.05
    print(f"{wrong} of 600 nulls rejected at 5 %")
    assert wrong / 600 <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 600)


def test_few_flips_in_clusters_have_a_bound_of_their_size():
    d = np.zeros(600)
    d[[0, 60, 120]], d[200] = -1, 1
    families = np.repeat(np.arange(24), 25)
    found = paired_difference(np.zeros(600), d, families)
    assert found.kind == "exact" and found.clusters == 24 and -0.06 < found.low < -0.015 and found.high < 0.06
    # Clusters of one item each are items, and several flips in one cluster widen the bound.
    alone = paired_difference(np.zeros(600), d)
    assert paired_difference(np.zeros(600), d, np.arange(600)).low == pytest.approx(alone.low, rel=0.01)
    spread, heap = np.zeros((2, 600))
    spread[np.arange(8) * 60], heap[:8] = -1, -1
    assert paired_difference(0 * heap, heap, families).low < paired_difference(0 * heap, spread, families).low
    assert paired_difference(np.zeros(600), d, np.zeros(600, int)).low < found.low


@pytest.mark.parametrize(("groups", "size"), [(24, 25), (10, 60), (60, 10), (6, 100), (24, 8)])
@pytest.mark.parametrize("share", [0.005, 0.02, 0.04])
def test_the_bound_of_few_flips_in_clusters_covers(groups, size, share):
    rng = np.random.default_rng(0)
    families, icc, draws = np.repeat(np.arange(groups), size), 0.3, 200
    missed = 0
    for rate in rng.beta(share * (1 - icc) / icc, (1 - share) * (1 - icc) / icc, (draws, groups)):
        d = -(rng.random(len(families)) < rate[families]).astype(float)
        found = paired_difference(np.zeros(len(d)), d, families)
        missed += found.kind == "exact" and found.low > -share
    assert missed / draws <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / draws)


def test_a_planted_loss_fails_and_names_its_task(tmp_path):
    rng = np.random.default_rng(5)
    before = {t: (rng.random(2_000) < 0.6).astype(float) for t in ("qa", "code", "math")}
    after = {t: np.where(rng.random(2_000) < 0.05, rng.permutation(v), v) for t, v in before.items()}
    after["code"] = after["code"] * (rng.random(2_000) > 0.06)
    write_sheets(tmp_path, [sheet(t, s, v) for s, side in ((1, before), (2, after)) for t, v in side.items()])
    found = compare(read_evals(tmp_path), "step-1", "step-2")
    assert [(c.task, c.level) for c in found][0] == ("code", "fail")
    assert {c.level for c in found[1:]} == {"pass"}
    done = run("evals", "compare", tmp_path, "--from", "step-1", "--to", "2", "--json")
    answer = json.loads(done.stdout)
    assert done.exit_code == 2 and {"task", "difference", "interval", "n", "clusters", "se_kind", "level",
                                    "reason"} <= set(answer[0])  # fmt: skip


@pytest.mark.parametrize("change", [{"n_shot": 5}, {"prompt_hash": "q"}, {"filter": "strict"}, {"version": "2"}])
def test_what_was_not_measured_alike_is_unknown_and_says_what_differs(tmp_path, change):
    values = (np.random.default_rng(2).random((2, 500)) < 0.7).astype(float)
    write_sheets(tmp_path, [sheet("qa", 1, values[0]), sheet("qa", 2, values[1], **change)])
    (one,) = compare(read_evals(tmp_path), "step-1", "step-2")
    assert one.level == "unknown" and next(iter(change)) in one.reason


def test_other_items_and_lost_scores_are_unknown(tmp_path):
    values = (np.random.default_rng(3).random((2, 500)) < 0.7).astype(float)
    second = sheet("qa", 2, values[1])
    for i, other in enumerate((with_items(second, item=[f"other-{i}" for i in range(500)]),
                               with_items(second, score=np.where(np.arange(500) < 50, np.nan, values[1])))):
        write_sheets(tmp_path / str(i), [sheet("qa", 1, values[0]), other])
        (one,) = compare(read_evals(tmp_path / str(i)), "step-1", "step-2")
        assert one.level == "unknown"


def test_too_few_items_to_show_two_points_are_unknown(tmp_path):
    values = (np.random.default_rng(4).random((2, 60)) < 0.7).astype(float)
    write_sheets(tmp_path, [sheet("qa", 1, values[0]), sheet("qa", 2, values[1])])
    (one,) = compare(read_evals(tmp_path), "step-1", "step-2")
    assert one.level == "unknown" and "could not have shown" in one.reason and one.shares


def test_scores_that_are_no_shares_say_so(tmp_path):
    losses = np.random.default_rng(1).random((2, 60)) + [[2], [2.5]]
    write_sheets(tmp_path, [sheet("qa", i, v, higher_is_better=False) for i, v in enumerate(losses)])
    (one,) = compare(read_evals(tmp_path), "step-0", "step-1")
    assert not one.shares and "points" not in one.reason and one.to_json()["shares"] is False
