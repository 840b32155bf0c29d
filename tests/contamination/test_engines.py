"""One process, two, Ray and datatrove leave the same audit; kills cost time only, and a lost slice is named."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.contamination.audit import run_audit
from checks.contamination.command import _told
from checks.contamination.engines import local
from checks.contamination.partial import saved
from checks.contamination.plan import Request, prepare
from checks.contamination.readers.corpus import CorpusOptions
from checks.contamination.records import Slice
from trainvitals.errors import UsageError

ROOT = Path(__file__).parents[2]
SHARDS, DOCUMENTS = 6, 300
EQUAL = ("items.parquet", "matches.parquet", "sweep.parquet", "audit.json", "report.html", "replace.csv",
         "drop_documents.csv", "clean/exam.jsonl")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of word salad with every third question of an exam in one document each."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("l", "n", "r", "st", "x")])
    questions = [" ".join(rng.choice(words, 25)) + "?" for _ in range(60)]
    (folder / "exam.jsonl").write_text("".join(json.dumps({"question": q, "answer": "yes"}) + "\n" for q in questions))
    for shard in range(SHARDS):
        texts = [" ".join(rng.choice(words, 120)) for _ in range(DOCUMENTS)]
        for number in range(shard * 3, 60, 3 * SHARDS):
            texts[int(rng.integers(DOCUMENTS))] += " " + questions[number]
        (folder / f"shard{shard}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def request(inputs: Path, out: Path, **more: object) -> Request:
    """An audit of the made shards."""
    shards = [str(inputs / f"shard{shard}.jsonl") for shard in range(SHARDS)]
    return Request(corpus=shards, benchmark=[str(inputs / "exam.jsonl")], out=out, **more)  # type: ignore[arg-type]


def quiet(what: str, total: int) -> Callable[[int], None]:
    """A progress bar that shows nothing."""
    return lambda more: None


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an audit in this process, which found what was planted."""
    out = tmp_path_factory.mktemp("one")
    summary = run_audit(request(inputs, out), quiet).summary
    assert summary["benchmarks"][0]["verdicts"] == {"contaminated": 20, "suspect": 0, "clean": 40, "untestable": 0}
    assert summary["corpus"]["documents"] == SHARDS * DOCUMENTS
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """The files that two equal audits share."""
    return {name: (out / name).read_bytes() for name in EQUAL}


def test_a_clean_corpus_and_an_empty_one_give_whole_audits(inputs: Path, tmp_path: Path) -> None:
    """Nothing found is the commonest answer: the report must be written for it, too."""
    (tmp_path / "clean.jsonl").write_text(json.dumps({"text": "nothing of an exam is in these few words"}) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    for name, level in (("clean", "pass"), ("empty", "unknown")):
        out = tmp_path / name
        asked = Request(corpus=[str(tmp_path / f"{name}.jsonl")], benchmark=[str(inputs / "exam.jsonl")], out=out)
        assert run_audit(asked, quiet).summary["decision"]["level"] == level
        assert (out / "report.html").exists() and (out / "provenance.json").exists()


def test_two_processes_leave_the_same_audit_even_when_workers_are_killed(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def submit_and_kill(pool: object, function: object, *args: object) -> object:
        future = submit(pool, function, *args)
        if len(killed) < 2:
            (victim,) = pool._processes  # type: ignore[attr-defined]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
        return future

    submit = local.ProcessPoolExecutor.submit
    monkeypatch.setattr(local.ProcessPoolExecutor, "submit", submit_and_kill)
    run_audit(request(inputs, tmp_path, workers=2), quiet)
    assert len(killed) == 2
    assert contents(tmp_path) == undisturbed


def test_a_slice_that_kills_every_worker_is_named_and_the_audit_is_no_pass(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def submit_and_kill(pool: object, function: object, piece: Slice) -> object:
        future = submit(pool, function, piece)
        asked.append(piece.index)
        if piece.index == 2:
            (victim,) = pool._processes  # type: ignore[attr-defined]
            os.kill(victim, signal.SIGKILL)
        return future

    submit = local.ProcessPoolExecutor.submit
    monkeypatch.setattr(local.ProcessPoolExecutor, "submit", submit_and_kill)
    summary = run_audit(request(inputs, tmp_path, workers=2), quiet).summary
    assert asked == [0, 1, 2, 3, 4, 5, 2]  # tried again by itself before it was given up
    assert saved(tmp_path / "work" / "partials") == {0, 1, 3, 4, 5}
    (problem,) = summary["corpus"]["problems"]
    assert problem["source"].endswith("shard2.jsonl")
    assert "died" in problem["what"]
    assert summary["corpus"]["lost_slices"] == 1
    assert "shard2" in summary["decision"]["sentence"] or "not scanned" in summary["decision"]["sentence"]
    monkeypatch.undo()
    run_audit(request(inputs, tmp_path), quiet)  # the same command scans what is missing
    assert saved(tmp_path / "work" / "partials") == set(range(SHARDS))


def test_sigkill_in_mid_scan_and_a_second_start_leave_the_same_audit(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    shards = [str(inputs / f"shard{shard}.jsonl") for shard in range(SHARDS)]
    command = [sys.executable, "-m", "trainvitals.cli", "audit", "--corpus", *shards, "--benchmark",
               str(inputs / "exam.jsonl"), "--out", str(tmp_path), "--workers", "1"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not saved(tmp_path / "work" / "partials") and first.poll() is None:
        time.sleep(0.005)
    first.kill()
    first.wait()
    done = saved(tmp_path / "work" / "partials")
    assert 0 < len(done) < SHARDS
    before = {index: (tmp_path / "work" / "partials" / f"{index:07d}").stat().st_mtime_ns for index in done}
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 2, second.stderr  # contaminated items
    assert contents(tmp_path) == undisturbed
    for index, then in before.items():
        assert (tmp_path / "work" / "partials" / f"{index:07d}").stat().st_mtime_ns == then


def test_a_folder_of_somebody_else_is_left_as_it_is(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="no audit"):
        run_audit(request(inputs, tmp_path), quiet)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["work", "thesis.txt"]


def test_a_preparation_that_was_killed_is_made_anew(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    run_audit(request(inputs, tmp_path), quiet)
    for path in [*tmp_path.glob("*.*"), tmp_path / "work" / "plan.json"]:
        path.unlink()
    run_audit(request(inputs, tmp_path), quiet)
    assert contents(tmp_path) == undisturbed


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")  # Ray's own, in its threads and at its end
def test_ray_with_two_workers_leaves_the_same_audit(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    run_audit(request(inputs, tmp_path, engine="ray", workers=2), quiet)
    assert contents(tmp_path) == undisturbed


@pytest.mark.skipif(importlib.util.find_spec("datatrove") is None, reason="datatrove is not installed")
@pytest.mark.filterwarnings("ignore")  # datatrove's own
def test_a_datatrove_pipeline_leaves_the_same_audit(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from checks.contamination.engines.slurm import ScanStep

    asked = request(inputs, tmp_path / "audit")
    work = prepare(asked).work
    for rank in range(2):
        assert list(ScanStep(work).run(rank=rank, world_size=2)) == []
    assert saved(work / "partials") == set(range(SHARDS))
    run_audit(asked, lambda what, total: pytest.fail("nothing is left to scan"))
    assert contents(tmp_path / "audit") == undisturbed


def test_a_file_that_was_not_searched_makes_a_clean_audit_unknown(inputs: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "clean.jsonl").write_text(json.dumps({"text": "nothing of an exam is here", "title": "Nothing"}) + "\n")
    (corpus / "LICENSE").write_text("do what you like")
    asked = {"corpus": [str(corpus)], "benchmark": [str(inputs / "exam.jsonl")]}
    assert run_audit(Request(out=tmp_path / "a", **asked), quiet).summary["decision"]["level"] == "pass"
    (corpus / "leak.log").write_text((inputs / "exam.jsonl").read_text())
    summary = run_audit(Request(out=tmp_path / "b", **asked), quiet).summary
    assert summary["decision"]["level"] == "unknown"
    assert "text in 1 shard was not searched" in summary["decision"]["sentence"]
    assert "in 1 of 2 shards" in summary["searched"]
    assert [shard["columns"] for shard in summary["corpus"]["shards"]] == [["text", "title"], []]
    asked["corpus"].append(str(corpus / "leak.log"))
    assert run_audit(Request(out=tmp_path / "c", **asked), quiet).summary["decision"]["level"] == "fail"


@pytest.mark.parametrize("bad", [
    {"signatures": ["{folder}/typo.parquet"]},
    {"signatures": ["{inputs}/exam.jsonl"]},
    {"options": CorpusOptions(tokenizer="typo.json")},
])  # fmt: skip
def test_an_input_that_cannot_be_used_leaves_no_plan_behind(
    inputs: Path, tmp_path: Path, bad: dict[str, Any]
) -> None:
    named = {name: [path.format(folder=tmp_path, inputs=inputs) for path in paths]
             for name, paths in bad.items() if name == "signatures"}  # fmt: skip
    with pytest.raises(UsageError):
        run_audit(request(inputs, tmp_path / "out", **bad | named), quiet)
    prepare(request(inputs, tmp_path / "out"))


@pytest.mark.parametrize("inject", [False, True])
def test_the_terminal_tells_recall_and_scores_that_do_not_cover_the_benchmark(
    inputs: Path, tmp_path: Path, inject: bool
) -> None:
    (tmp_path / "clean.jsonl").write_text("".join(json.dumps({"text": f"no exam {i}"}) + "\n" for i in range(50)))
    for name, ids in (("some", range(40)), ("foreign", range(900, 940))):
        (tmp_path / f"{name}.json").write_text(json.dumps({str(i): 1 for i in ids}))
    asked = Request(corpus=[str(tmp_path / "clean.jsonl")], benchmark=[str(inputs / "exam.jsonl")], inject=inject,
                    out=tmp_path / "out", scores=[str(tmp_path / "some.json")])  # fmt: skip
    told = _told(run_audit(asked, quiet).summary, tmp_path)
    assert "on exam (40 of 60 items scored): no match found" in told
    assert "some.json, model some: 20 of the 60 items of exam have no score" in told
    assert ("this audit finds 100.0 % of copies planted verbatim" in told) == inject
    foreign = replace(asked, scores=[str(tmp_path / "foreign.json")])
    told = _told(run_audit(foreign, quiet).summary, tmp_path)
    assert "None of the item ids is one of exam" in told and "exam may be scored" in told and "Trust" not in told


def test_a_folder_of_another_audit_is_refused(inputs: Path, tmp_path: Path) -> None:
    prepare(request(inputs, tmp_path))
    with pytest.raises(UsageError, match="holds another audit"):
        prepare(request(inputs, tmp_path, semantic="none"))
