"""Results of other harnesses, laid out as each writes them (its source is named), and broken ones."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.importers.evals.door import FORMATS, results_at
from collectors.importers.evals.found import Asked
from tests.review.staged import sheet
from trainvitals.cli import cli
from trainvitals.errors import UsageError
from trainvitals.evals import write_sheets

TINY = Path(__file__).parents[3] / "shared" / "data" / "evals" / "lm_eval_tiny"


def the(path, **asked):
    """What the one result file at a path holds."""
    ((_, format_, found),) = results_at(path, Asked(**asked))
    if isinstance(found, UsageError):
        raise found
    return format_.name, {sheet.task: sheet for sheet in found.sheets}, " ".join(found.notes)


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
    return path


# -- NeMo Evaluator ----------------------------------------------------------------------------------------------------
# As nemo_evaluator 0.3.0 writes: engine/artifacts.py (build_artifact_bundle, write_all), engine/eval_loop.py
# (result_dict, scoring_details of errors), solvers/trajectory_util.py (ATIF).


def trajectory(tool=False):
    call = {"tool_calls": [{"tool_call_id": "1", "function_name": "bash", "arguments": {}}]} if tool else {}
    return [{"schema_version": "ATIF-v1.6", "steps": [{"step_id": 1, "source": "user", "message": "q"},
                                                      {"step_id": 2, "source": "agent", "message": "a", **call}],
             "final_metrics": {"total_steps": 2, "total_prompt_tokens": 30, "total_completion_tokens": 7}}]  # fmt: skip


def answer(at, reward, repeat=0, prompt=None, **more):
    return {"problem_idx": at, "repeat": repeat, "reward": reward, "scorer_rewards": {},
            "prompt": prompt or f"What is {at}?", "model_response": "It is 4.", "extracted_answer": "4",
            "expected_answer": str(at), "scoring_details": {"method": "exact_match"},
            "metadata": {"category": f"c{at % 2}"}, "tokens": 37, "latency_ms": 1500.0, **more}  # fmt: skip


def nemo(folder, rows, value=None, **benchmark):
    means = {r["problem_idx"]: r.get("reward", 0) for r in rows}
    value = sum(means.values()) / max(len(means), 1) if value is None else value
    bundle = {"run_id": "eval-20260901T100000Z-gsm8k", "config_hash": "sha256:ab", "sdk_version": "0.3.0",
              "timestamp": "2026-09-01T10:00:00+00:00", "config": {"benchmark": "gsm8k", "model": "tiny", "repeats": 1},
              "benchmark": {"name": "gsm8k", "samples": len(means), "repeats": 1,
                            "scores": {"pass@1": {"value": round(value, 4), "ci_lower": 0, "ci_upper": 1}}} | benchmark,
              "n_results": len(rows)}  # fmt: skip
    lines(folder / "results.jsonl", rows)
    return dump(folder / f"{bundle['run_id']}.json", bundle)


def test_a_nemo_bundle_is_read_by_content(tmp_path):
    rows = [answer(i, float(i % 3 == 0), trajectory=trajectory()) for i in range(6)]
    nemo(tmp_path / "ckpt-step500" / "gsm8k", rows)
    # Another order, as a shuffle gives: other places, the same questions.
    moved = [dict(row, problem_idx=5 - row["problem_idx"]) for row in rows]
    nemo(tmp_path / "ckpt-step900" / "gsm8k", moved)
    (_, _, one), (_, _, two) = results_at(tmp_path, Asked())
    (one,), (two,) = one.sheets, two.sheets
    assert (one.task, one.step, two.step, one.kind) == ("gsm8k", 500, 900, "model")
    assert (one.family, one.metric) == ("math", "reward") and one.harness == "nemo-evaluator 0.3.0"
    first, second = (s.items.set_index("item")["score"] for s in (one, two))
    assert first.to_dict() == second.to_dict() and first.sum() == 2
    row = one.items.iloc[0]
    assert (row["latency_s"], row["tokens_in"], row["tokens_out"], row["cluster"]) == (1.5, 30, 7, "c0")


def test_what_nemo_lost_is_missing_and_not_wrong(tmp_path):
    def failed(method, category):
        return {"scoring_details": {"error": "HTTP 503", "error_category": category, "method": method}}

    rows = [answer(0, 1.0), answer(1, 0.0), answer(2, 0.0, **failed("infra_error", "infra_error")),
            answer(3, 0.0, **failed("solve_failed", "graceful")), answer(4, 0.0, **failed("system_error", "system")),
            answer(5, 0.0, **failed("graceful_error", "graceful")),
            answer(6, 0.0, scoring_details={"judge": {"error": "no judge_client", "total": None}})]  # fmt: skip
    nemo(tmp_path, rows)
    _, sheets, notes = the(tmp_path, step=1)
    items = sheets["gsm8k"].items
    np.testing.assert_array_equal(items["score"].astype(float), [1, 0, np.nan, np.nan, np.nan, 0, np.nan])
    assert items["error"].notna().to_list() == [False, False, True, True, True, False, True]
    assert items["error"][2] == "HTTP 503" and items["error"][6].startswith("judge")
    assert "4 of 7 answers were lost" in notes and "1 answers ended in an error of the workflow itself" in notes


def test_a_nemo_bundle_tells_what_does_not_fit(tmp_path):
    rows = [answer(0, 1.0, prompt="same"), answer(1, 0.0, prompt="same"), answer(0, 0.0, prompt="same")]
    rows[1]["expected_answer"] = "0"
    nemo(tmp_path, rows, value=0.9, samples=4, repeats=2)
    _, sheets, notes = the(tmp_path, step=1)
    assert sheets["gsm8k"].items["item"].nunique() == 2 and sheets["gsm8k"].items["score"].sum() == 0
    for said in ("earlier line has, too", "claims 3 answers", "claims 4 problems", "claims pass@1 0.9",
                 "2 of 2 answers a problem are missing"):  # fmt: skip
        assert said in notes, said


def test_nemo_keeps_agents_and_extra_scorers_apart(tmp_path):
    scorer = {"scoring_details": {"method": "m", "scorer:f1": {"correct": True, "reward": 0.5}}}
    broken = {"scoring_details": {"method": "m", "scorer:f1": {"error": "boom", "reward": 0.0}}}
    nemo(tmp_path, [answer(0, 1.0, trajectory=trajectory(tool=True), **scorer), answer(1, 0.0, **broken)])
    _, sheets, _ = the(tmp_path, step=1)
    assert {s.kind for s in sheets.values()} == {"workflow"}
    np.testing.assert_array_equal(sheets["gsm8k:scorer:f1"].items["score"].astype(float), [0.5, np.nan])


def test_a_minimal_nemo_bundle_and_one_without_answers(tmp_path):
    nemo(tmp_path / "a", [{"problem_idx": i, "repeat": 0, "reward": 1.0} for i in range(3)])
    _, sheets, notes = the(tmp_path / "a", step=1)
    assert len(sheets["gsm8k"].items) == 3 and "hold no prompt" in notes
    path = nemo(tmp_path / "b", [answer(0, 1.0)], value=0.5)
    (tmp_path / "b" / "results.jsonl").unlink()
    _, sheets, notes = the(path, step=1)
    assert sheets["gsm8k"].aggregate == 0.5 and not len(sheets["gsm8k"].items) and "no answers" in notes


def test_broken_nemo_bundles_name_file_and_remedy(tmp_path):
    path = nemo(tmp_path, [answer(0, 1.0)])
    with pytest.raises(UsageError, match="Add --step"):
        dump(path, json.loads(path.read_text()) | {"config": {}})
        the(path)
    (tmp_path / "results.jsonl").write_text('{"reward": 1}\n')
    with pytest.raises(UsageError, match="line 1 names no problem_idx"):
        the(path, step=1)
    dump(tmp_path / "eval-other.json", json.loads(path.read_text()))
    with pytest.raises(UsageError, match="2 bundles and one results.jsonl"):
        the(path, step=1)
    path.write_text('{"benchmark"')
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        the(path, step=1)


# -- Every Eval Ever ---------------------------------------------------------------------------------------------------
# As every_eval_ever 0.3.0 writes: schemas/eval.schema.json, schemas/instance_level_eval.schema.json, and its converters
# of lm-evaluation-harness and Inspect (converters/*/instance_level_adapter.py).


def sample(name, result, score, place, raw=None, **more):
    return {"schema_version": "0.3.0", "evaluation_id": "qa/lab_tiny/1700000000", "model_id": "lab/tiny",
            "evaluation_name": name, "evaluation_result_id": result, "sample_id": str(place), "sample_hash": None,
            "interaction_type": "single_turn", "output": {"raw": ["4"], "reasoning_trace": None}, "messages": None,
            "input": {"raw": f"Q{place}?" if raw is None else raw, "formatted": None, "reference": ["4"],
                      "choices": None},
            "answer_attribution": [{"turn_idx": 0, "source": "output.raw", "extracted_value": "4",
                                    "extraction_method": "none", "is_terminal": True}],
            "evaluation": {"score": score, "is_correct": score == 1.0, "num_turns": None, "tool_calls_count": None},
            "token_usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
            "performance": {"latency_ms": 250.0}, "error": None, "metadata": None} | more  # fmt: skip


def result(name, identity, metric="accuracy", score=0.5, n=None, **config):
    return {"evaluation_result_id": identity, "evaluation_name": name,
            "source_data": {"dataset_name": "qa", "source_type": "other"},
            "metric_config": {"metric_name": metric, "lower_is_better": False, "score_type": "continuous",
                              "min_score": 0, "max_score": 1} | config,
            "score_details": {"score": score, "uncertainty": {"num_samples": n} if n else None}}  # fmt: skip


def eee(folder, results, rows, **details):
    stem = "6f1d9c0e-4f4b-4f7e-9d2b-0a1b2c3d4e5f"
    place = folder / f"{stem}_samples.jsonl"
    lines(place, rows)
    log = {"schema_version": "0.3.0", "evaluation_id": "qa/lab_tiny/1700000000", "retrieved_timestamp": "1700000000",
           "source_metadata": {"source_type": "evaluation_run", "source_organization_name": "lab",
                               "evaluator_relationship": "first_party"},
           "eval_library": {"name": "lm_eval", "version": "0.4.9"},
           "model_info": {"name": "tiny", "id": "lab/tiny", "additional_details": {
               "deployment_type": "self_deployed", "model_availability": "open_weights", "checkpoint_step": "700"}},
           "evaluation_results": results,
           "detailed_evaluation_results": {
               "format": "jsonl", "file_path": f"data/qa/lab/tiny/{stem}_samples.jsonl", "hash_algorithm": "sha256",
               "checksum": hashlib.sha256(place.read_bytes()).hexdigest(),
               "total_rows": len(rows)} | details}  # fmt: skip
    return dump(folder / f"{stem}.json", log)


def test_every_eval_ever_joins_samples_to_their_result(tmp_path):
    rows = [sample("qa", "qa::acc", float(i < 2), i) for i in range(4)]
    rows += [sample("qa", "qa::f1", 0.25, i) for i in range(4)]
    results = [result("qa", "qa::acc", n=4), result("qa", "qa::f1", "f1", 0.25), result("match", "b")]
    path = eee(tmp_path, results, rows)
    name, sheets, notes = the(path)
    assert name == "Every Eval Ever" and list(sheets) == ["qa", "qa:f1", "qa/match"]
    one = sheets["qa"]
    assert (one.step, one.checkpoint, one.harness, one.kind) == (700, "step-700", "lm_eval 0.4.9", "model")
    assert one.items["score"].sum() == 2 and one.items["tokens_out"].sum() == 8
    assert one.items["latency_s"].to_list() == [0.25] * 4
    assert set(one.items["item"]) == set(sheets["qa:f1"].items["item"])
    assert sheets["qa/match"].aggregate == 0.5 and "1 of 3 results have no samples" in notes and "claims" not in notes


def test_every_eval_ever_items_are_named_by_content(tmp_path):
    rows = [sample("qa", "r", 1.0, 0, "same"), sample("qa", "r", 0.0, 1, "same"), sample("qa", "r", 1.0, 1, "same"),
            sample("qa", "r", 0.0, 2, "", input={"raw": "", "reference": []}),
            sample("qa", "r", 0.0, 3, metadata={"doc_hash": "d0c", "prompt_hash": "p"})]  # fmt: skip
    _, sheets, notes = the(eee(tmp_path, [result("qa", "r", score=0.4)], rows))
    items = sheets["qa"].items
    assert items["item"].nunique() == 4 and items["sample"].to_list() == [0, 0, 1, 0, 0]
    assert items["item"][1] == items["item"][0] + "#1" and {"sample 2", "d0c"} <= set(items["item"])
    assert "further answers" in notes and "hold no input" in notes


def test_what_every_eval_ever_could_not_score_is_missing(tmp_path):
    rows = [sample("qa", "r", 0.0, 0, error="timeout"), sample("qa", "r", -1.0, 1), sample("qa", "r", 1.0, 2),
            sample("qa", "r", 0.0, 3, metadata={"lm_eval_metrics": '{"acc": [1, 2]}'}),
            sample("qa", "r", 1.0, 4, interaction_type="agentic", output=None, messages=[])]  # fmt: skip
    _, sheets, notes = the(eee(tmp_path, [result("qa", "r", n=6, has_unknown_level=True)], rows))
    np.testing.assert_array_equal(sheets["qa"].items["score"].astype(float), [np.nan, np.nan, 1, np.nan, 1])
    assert sheets["qa"].items["error"][0] == "timeout" and sheets["qa"].kind == "workflow"
    assert "1 of 5 rows of qa ended in an error" in notes and "claims 6 samples, and 5" in notes


def test_broken_every_eval_ever_logs_name_file_and_remedy(tmp_path):
    rows = [sample("qa", "r", 1.0, 0)]
    with pytest.raises(UsageError, match="the sha256 differs. Fetch both"):
        the(eee(tmp_path, [result("qa", "r")], rows, checksum="0" * 64))
    with pytest.raises(UsageError, match="line 1 belongs to 'other'"):
        the(eee(tmp_path, [result("qa", "r")], [dict(rows[0], evaluation_id="other")]))
    with pytest.raises(UsageError, match="line 1 is no sample"):
        the(eee(tmp_path, [result("qa", "r")], [[1]]))
    path = eee(tmp_path, [result("qa", "r", score=0.2)], [*rows, sample("gone", "gone", 1.0, 1)], total_rows=7)
    _, _, notes = the(path)
    assert "claims 7 rows" in notes and "1 rows belong to none" in notes and "score of 0.2" in notes
    next(tmp_path.glob("*_samples.jsonl")).unlink()
    _, sheets, notes = the(path)
    assert sheets["qa"].aggregate == 0.2 and "not beside it" in notes


def exported(folder):
    return CliRunner().invoke(cli, ["evals", "export", str(folder / "run"), "--format", "every-eval-ever", "--out",
                                    str(folder / "out")], catch_exceptions=False)  # fmt: skip


def test_what_is_exported_is_imported_again(tmp_path):
    scores = sheet("qa", 100, [1, 0, np.nan, 1])
    scores.items["cluster"] = ["a", "a", "b", "b"]
    twice = sheet("code", 100, [0.5, 0.25], kind="workflow", metric="loss", higher_is_better=False)
    twice.items["item"], twice.items["sample"] = "same", [0, 1]
    write_sheets(tmp_path / "run", [scores, twice, sheet("none", 100, [np.nan], harness="other 1")])
    done = exported(tmp_path)
    assert done.exit_code == 0 and "none has no score at all" in done.output
    _, sheets, notes = the(tmp_path / "out")
    assert "claims" not in notes and set(sheets) == {"qa", "code"}
    for before in (scores, twice):
        after = sheets[before.task]
        keep = ["item", "sample", "score"]
        left, right = (s.items[keep].sort_values(keep).reset_index(drop=True).astype({"score": float})
                       for s in (before, after))  # fmt: skip
        pd.testing.assert_frame_equal(left, right, check_dtype=False)
        told = {k: v for k, v in before.facts.items() if k not in ("source", "harness", "family", "chance")}
        assert {k: getattr(after, k) for k in told} == told
    assert sorted(sheets["qa"].items["cluster"]) == ["a", "a", "b", "b"]


def test_what_cannot_be_exported_is_told(tmp_path):
    (path,) = write_sheets(tmp_path / "run", [sheet("qa", 100, [1, 0]), sheet("code", 100, [1])])
    assert isinstance(CliRunner().invoke(cli, ["evals", "export", str(tmp_path), "--format", "every-eval-ever", "--out",
                                               str(tmp_path / "x")]).exception, UsageError | SystemExit)  # fmt: skip
    data = bytearray((tmp_path / "run" / path).read_bytes())
    data[4:40] = b"\0" * 36
    (tmp_path / "run" / path).write_bytes(bytes(data))
    done = exported(tmp_path)
    assert done.exit_code == 1 and "cannot be read" in done.output


def test_what_is_exported_passes_the_format_s_own_validator(tmp_path):
    core = pytest.importorskip("every_eval_ever.validator.validation_core")
    write_sheets(tmp_path / "run", [sheet("qa", 100, [1, 0, np.nan]), sheet("code", 100, [0.5], kind="workflow")])
    assert not exported(tmp_path).exit_code
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.json*")}
    for name in files:
        report = core.validate_file(tmp_path / "out" / name, repo_path=name, run_semantic_checks=True,
                                    available_files=files,
                                    read_repo_file=lambda n: (tmp_path / "out" / n).read_text())  # fmt: skip
        assert not report.errors, report.errors


def test_our_every_eval_ever_files_are_what_its_own_types_take(tmp_path):
    types = pytest.importorskip("every_eval_ever.validator.validation_core")
    path = eee(tmp_path, [result("qa", "r")], [sample("qa", "r", 1.0, 0)])
    assert not types.validate_file(path).errors
    assert not types.validate_file(next(tmp_path.glob("*_samples.jsonl"))).errors


@pytest.mark.skipif(not TINY.is_dir(), reason=f"the result files are not at {TINY}")
def test_files_that_its_converter_made_have_the_items_of_the_files_themselves(tmp_path):
    pytest.importorskip("every_eval_ever.converters.lm_eval")
    # The older of two runs, alone: the converter takes the samples of whichever date comes first.
    found = min((TINY / "ckpt__tiny-llama-step110").glob("results_*.json"))
    (tmp_path / "in").mkdir()
    for file in found.parent.glob(f"*{found.stem.removeprefix('results')}.*"):
        shutil.copy(file, tmp_path / "in")
    source = tmp_path / "in" / found.name
    subprocess.run([sys.executable, "-m", "every_eval_ever.converters.lm_eval", "--log_path", str(source),
                    "--output_dir", str(tmp_path / "out"), "--source_organization_name", "x", "--include_samples",
                    "--evaluator_relationship", "first_party"], check=True, capture_output=True)  # fmt: skip
    ((_, _, direct),) = results_at(source, Asked())
    made = {s.task: s for _, _, found in results_at(tmp_path / "out", Asked()) for s in found.sheets}
    for task in ("tiny_mc_color", "tiny_mc_place"):
        own = next(s for s in direct.sheets if s.task == task)
        one = made[task]
        assert (one.step, one.metric, one.chance) == (own.step, own.metric, own.chance)
        left, right = (s.items.set_index("item")["score"].astype(float).to_dict() for s in (own, one))
        assert left == right


# -- HELM --------------------------------------------------------------------------------------------------------------
# As crfm-helm 0.5.16 writes: benchmark/runner.py (run_one), metrics/statistic.py (Stat), metrics/metric.py
# (PerInstanceStats), adaptation/request_state.py, scenarios/scenario.py (Instance); None fields are left out.


def stat(name, mean, split="test", **more):
    return {"name": {"name": name, "split": split} | more, "count": 1, "sum": mean, "sum_squared": mean * mean,
            "min": mean, "max": mean, "mean": mean, "variance": 0.0, "stddev": 0.0}  # fmt: skip


def asked(number, changed=None, **failed):
    instance = {"input": {"text": f"Which is {number}?"}, "split": "test", "id": f"id{number}", "references": [
        {"output": {"text": text}, "tags": tags} for text, tags in (("one", ["correct"]), ("two", []))]}  # fmt: skip
    if changed:
        instance["perturbation"] = {"name": changed, "robustness": True, "fairness": False, "computed_on": "perturbed"}
    result = {"success": True, "embedding": [], "cached": False, "request_time": 0.5,
              "completions": [{"text": " A", "logprob": -1.0, "tokens": []}]}  # fmt: skip
    return {"instance": instance, "train_trial_index": 0, "output_mapping": {"A": "one", "B": "two"},
            "request": {"model": "x/y", "prompt": f"Q: {number}"}, "result": result | failed,
            "num_train_instances": 5, "prompt_truncated": False}  # fmt: skip


def helm(folder, scores, states=None, claimed=None, changed=None):
    run = folder / "mmlu:subject=anatomy,method=multiple_choice_joint,model=lab_tiny-step300"
    rows = [{"instance_id": f"id{n}", "train_trial_index": 0, "stats": [
        stat("exact_match", score), stat("quasi_exact_match", 1.0), stat("num_prompt_tokens", 70.0)]}
        for n, score in enumerate(scores)]  # fmt: skip
    if changed:
        how = {"name": changed, "robustness": True}
        rows.append({"instance_id": "id0", "train_trial_index": 0, "perturbation": how,
                     "stats": [stat("exact_match", 0.0, perturbation=how)]})
    dump(run / "per_instance_stats.json", rows)
    dump(run / "scenario_state.json", {"adapter_spec": {}, "request_states":
                                       [asked(n) for n in range(len(scores))] if states is None else states})
    claimed = sum(scores) / len(scores) if claimed is None else claimed
    dump(run / "stats.json", [stat("exact_match", claimed), stat("exact_match", 0.1, perturbation={"name": "typos"})])
    dump(run / "scenario.json", {"name": "mmlu"})
    return dump(run / "run_spec.json", {
        "name": run.name, "scenario_spec": {"class_name": "helm.benchmark.scenarios.mmlu_scenario.MMLUScenario"},
        "adapter_spec": {"method": "multiple_choice_joint", "max_train_instances": 5, "model": "lab/tiny-step300"},
        "metric_specs": [], "groups": ["mmlu"]})  # fmt: skip


def test_a_helm_run_is_read_by_content(tmp_path):
    name, sheets, notes = the(helm(tmp_path, [1.0, 0.0, 1.0, 1.0], [asked(n) for n in (0, 1, 2, 3)]))
    task = "mmlu:subject=anatomy,method=multiple_choice_joint"
    assert name == "HELM" and set(sheets) == {f"{task}:exact_match", f"{task}:quasi_exact_match"} and not notes
    one = sheets[f"{task}:exact_match"]
    assert (one.step, one.n_shot, one.chance, one.kind, one.family) == (300, 5, 0.5, "model", "knowledge")
    assert one.items["score"].sum() == 3 and set(one.items["answer"]) == {"one"} and one.prompt_hash
    # The same questions under other ids are the same items.
    again = [asked(n) for n in (3, 2, 1, 0)]
    for place, state in enumerate(again):
        state["instance"]["id"] = f"id{place}"
    _, turned, _ = the(helm(tmp_path, [1.0, 1.0, 0.0, 1.0], again))
    scores = [s[f"{task}:exact_match"].items.set_index("item")["score"].to_dict() for s in (sheets, turned)]
    assert scores[0] == scores[1]


def test_helm_requests_that_failed_and_perturbed_questions_are_apart(tmp_path):
    states = [asked(0), asked(1, success=False, error="429"), asked(2), asked(0, "typos")]
    _, sheets, notes = the(helm(tmp_path, [1.0, 0.0], states, changed="typos"))
    task = "mmlu:subject=anatomy,method=multiple_choice_joint:exact_match"
    items = sheets[task].items
    np.testing.assert_array_equal(items["score"].astype(float), [1, np.nan, np.nan])
    assert items["error"].fillna("").to_list() == ["", "429", ""] and len(sheets[f"{task}@typos"].items) == 1
    assert "1 of 4 requests failed" in notes and "1 of 3 answers have no exact_match" in notes


def test_broken_helm_runs_name_file_and_remedy(tmp_path):
    path = helm(tmp_path, [1.0, 0.0], claimed=0.9)
    assert "stats.json says exact_match 0.9" in the(path)[2]
    path.with_name("scenario_state.json").unlink()
    _, sheets, notes = the(path)
    assert "named by their place" in notes and {"instance id0", "instance id1"} == set(
        next(iter(sheets.values())).items["item"])  # fmt: skip
    path.with_name("per_instance_stats.json").write_text("[" + '{"instance_id": "id0", ' * 3)
    with pytest.raises(UsageError, match="per_instance_stats.json cannot be read as JSON"):
        the(path)
    path.with_name("per_instance_stats.json").write_text("{}")
    with pytest.raises(UsageError, match="holds no list"):
        the(path)
    path.with_name("per_instance_stats.json").unlink()
    with pytest.raises(UsageError, match="holds no score of answers"):
        the(path)


# -- lighteval ---------------------------------------------------------------------------------------------------------
# As lighteval 0.13.0 writes: logging/evaluation_tracker.py (results, save_results, save_details), tasks/requests.py
# (Doc), models/model_output.py (ModelResponse); struct columns, `id` left out.

DATE = "2026-09-01T10-00-00.123456"


def detail(query, metric, **more):
    return {"doc": {"query": query, "choices": [" A", " B"], "gold_index": 0, "specific": {"subject": "law"}, "id": "7",
                    "task_name": "mmlu:law|5"} | more, "metric": metric,
            "model_response": {"input": "shots " + query, "input_tokens": [1], "text": [], "logprobs": [-2.0, -1.0],
                               "output_tokens": [[1]], "logits": None}}  # fmt: skip


def light(folder, rows, names=("mmlu:law|5",), **config):
    model = "lab/tiny-step40"
    place = folder / "details" / model / DATE / f"details_{names[0]}_{DATE}.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), place)
    means = {"acc": 0.5, "acc_stderr": 0.1, "corpus_f1": 0.7}
    return dump(folder / "results" / model / f"results_{DATE}.json", {
        "config_general": {"lighteval_sha": "x", "max_samples": None, "model_config": {"model_name": model},
                           "model_name": model},
        "results": {name: means for name in (*names, "mmlu:_average|5", "all")},
        "versions": {name: 0 for name in names},
        "config_tasks": {name: {"name": name.split("|")[0], "num_fewshots": 5, "original_num_docs": len(rows),
                                "effective_num_docs": len(rows)} | config for name in names},
        "summary_tasks": {}, "summary_general": {}})  # fmt: skip


def test_lighteval_is_read_by_content(tmp_path):
    rows = [detail("Q1", {"acc": 1, "acc_norm": 0.0}), detail("Q2", {"acc": 0, "acc_norm": 0.0}),
            detail("Q1", {"acc": 1})]  # fmt: skip
    path = light(tmp_path, rows, original_num_docs=9, effective_num_docs=4)
    name, sheets, notes = the(path)
    assert name == "lighteval" and list(sheets) == ["mmlu:law", "mmlu:law:acc_norm", "mmlu:law:corpus_f1"]
    one = sheets["mmlu:law"]
    assert (one.step, one.n_shot, one.chance, one.metric, one.version) == (40, 5, 0.5, "acc", "0")
    assert one.items["item"].nunique() == 3 and one.items["score"].sum() == 2 and set(one.items["answer"]) == {" B"}
    assert set(one.items["cluster"]) == {"law"} and one.prompt_hash
    assert sheets["mmlu:law:acc_norm"].items["score"].isna().sum() == 1
    assert sheets["mmlu:law:corpus_f1"].aggregate == 0.7 and not len(sheets["mmlu:law:corpus_f1"].items)
    for said in ("claims 4 items", "3 of the 9 items", "1 items of mmlu:law|5 ask what"):
        assert said in notes, said


@pytest.mark.parametrize(("full", "name", "shots"), [("gsm8k|5", "gsm8k", 5), ("lighteval|gsm8k|5|0", "gsm8k", 5),
                                                     ("harness|arc:c|25", "arc:c", 25), ("x", "x", None)])
def test_lighteval_names_of_every_age(tmp_path, full, name, shots):
    one = the(light(tmp_path, [detail("Q1", {"acc": 1})], names=(full,)))[1][name]
    assert one.n_shot == shots and len(one.items) == 1


def test_broken_lighteval_results_name_file_and_remedy(tmp_path):
    path = light(tmp_path, [detail("Q1", {"acc": 1})])
    details = next(tmp_path.rglob("details_*"))
    pq.write_table(pa.table({"predictions": ["x"]}), details)
    with pytest.raises(UsageError, match="not doc and metric"):
        the(path)
    details.write_bytes(details.read_bytes()[:30])
    with pytest.raises(UsageError, match="details_.* cannot be read"):
        the(path)
    details.unlink()
    _, sheets, notes = the(path)
    assert sheets["mmlu:law"].aggregate == 0.5 and "--save-details" in notes
    # A task's name that leads out of the folder is no file's name.
    path = light(tmp_path / "b", [detail("Q1", {"acc": 1})], names=("x", "../../../../x", "y" * 400))
    assert not len(the(path)[1]["../../../../x"].items) and "y" * 400 in the(path)[1]
    path.write_text(path.read_text().replace('"results"', '"other"'))
    with pytest.raises(UsageError, match="holds no `results`"):
        the(path)


def test_a_task_s_name_leads_to_no_other_file(tmp_path):
    path = dump(tmp_path / "results_2026-09-01T10-00-00.123456.json", {"results": {
        name: {"acc": 1.0} for name in ("../x", "y" * 400, "a\0b")}})  # fmt: skip
    assert all(not len(one.items) for one in the(path, step=1)[1].values())


WEIRD = (None, True, [], {}, "", "x", -1, 10**30, float("nan"), float("inf"), [None], {"x": [1]}, [["a"]], "\ud800")


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(value, path, weird):
    if not path:
        return weird
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], weird)
    return copy


MAKERS = {
    "NeMo Evaluator": lambda at: nemo(at, [answer(0, 1.0, trajectory=trajectory(True)), answer(1, 0.0, scoring_details={
        "error_category": "system", "judge": {"error": "x"}, "scorer:a": {"reward": 1.0}})]),
    "Every Eval Ever": lambda at: eee(at, [result("qa", "r", n=1)], [sample("qa", "r", 1.0, 0, metadata={"a": "b"})],
                                      checksum=None, total_rows=1),
    "HELM": lambda at: helm(at, [1.0, 0.0], [asked(0), asked(1), asked(0, "typos")], changed="typos"),
    "lighteval": lambda at: light(at, [detail("Q", {"acc": 1})], metrics=[{"metric_name": ["acc"],
                                                                           "higher_is_better": {"acc": True}}]),
}  # fmt: skip


@pytest.mark.parametrize("format_", MAKERS)
@given(pick=st.integers(0, 10**6), weird=st.sampled_from(WEIRD), file=st.integers(0, 10))
@settings(max_examples=20, deadline=None)
def test_any_value_anywhere_is_read_or_one_sentence(tmp_path_factory, format_, pick, weird, file):
    folder = tmp_path_factory.mktemp("weird")
    MAKERS[format_](folder)
    files = sorted(p for p in folder.rglob("*.json*"))
    path = files[file % len(files)]
    if path.suffix == ".jsonl":
        value = [json.loads(line) for line in path.read_text().splitlines()]
        spots = list(places(value))[1:]
        lines(path, changed(value, spots[pick % len(spots)], weird))
    else:
        value = json.loads(path.read_text())
        spots = list(places(value))
        dump(path, changed(value, spots[pick % len(spots)], weird))
    try:
        told = [found for _, _, found in results_at(folder, Asked(step=1))]
    except UsageError as error:
        told = [error]
    for found in told:
        if isinstance(found, UsageError):
            assert len(str(found).splitlines()) == 1
        elif found.sheets:
            try:
                write_sheets(folder / "run", found.sheets)
            except UsageError as error:
                assert len(str(error).splitlines()) == 1


def test_each_format_is_recognised_by_one_reader_only(tmp_path):
    made = {"lighteval": light(tmp_path / "light", [detail("Q", {"acc": 1})]),
            "lm-evaluation-harness": dump(tmp_path / "lm" / "results_x.json", {"results": {"qa": {"acc": 1}}}),
            "Inspect": dump(tmp_path / "inspect.json", {"eval": {"task": "qa"}, "samples": [{"id": 1}]}),
            "HELM": helm(tmp_path / "helm", [1.0, 0.0]),
            "NeMo Evaluator": nemo(tmp_path / "nemo", [answer(0, 1.0)]),
            "Every Eval Ever": eee(tmp_path / "eee", [result("qa", "r")], [sample("qa", "r", 1.0, 0)])}  # fmt: skip
    for name, path in made.items():
        assert [f.name for f in FORMATS if f.matches(path)] == [name]
        assert the(path, step=1)[0] == name
