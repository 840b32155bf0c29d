"""Results of other harnesses, laid out as each writes them (its source is named), and broken ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from collectors.importers.evals.door import FORMATS, results_at
from collectors.importers.evals.found import Asked
from trainvitals.errors import UsageError


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
            "prompt": prompt or f"What is {at}?", "model_response": "It is 4.", "extracted_answer": "4", "expected_answer": str(at),
            "scoring_details": {"method": "exact_match"}, "metadata": {"category": f"c{at % 2}"}, "tokens": 37,
            "latency_ms": 1500.0, **more}  # fmt: skip


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
            answer(6, 0.0, scoring_details={"judge": {"error": "no judge_client configured", "total": None}})]  # fmt: skip
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


def test_each_format_is_recognised_by_one_reader_only(tmp_path):
    made = {"NeMo Evaluator": nemo(tmp_path / "nemo", [answer(0, 1.0)])}
    for name, path in made.items():
        assert [f.name for f in FORMATS if f.matches(path)] == [name]
        assert the(path, step=1)[0] == name
