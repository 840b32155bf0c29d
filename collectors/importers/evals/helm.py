"""HELM: a folder of one run, with `run_spec.json`, `per_instance_stats.json`, `scenario_state.json` and `stats.json`.

Which metric counts is written in HELM's schema and not in the run: every metric of answers is a task of its own,
`mmlu:subject=anatomy:exact_match`. So are perturbed questions and, where there are several, splits.
`instance_id` is a position: an item is named by its input and references, which `scenario_state.json` holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from collectors.importers.evals.families import family_of
from collectors.importers.evals.found import (
    Asked,
    Found,
    checkpoint_of,
    cluster_of,
    counted,
    item_of,
    json_of,
    mapping,
    numeric,
)
from trainvitals.errors import UsageError
from trainvitals.evals import Sheet

INSTANCES, STATE, STATS = "per_instance_stats.json", "scenario_state.json", "stats.json"
BESIDE = (INSTANCES, STATE, STATS, "scenario.json")
NO_ANSWER = re.compile(r"^(num_|training_|inference_|finish_reason|batch_size|prompt_truncated|predicted_index|"
                       r"max_prob|logprob$)")  # fmt: skip
"""Metrics of cost and length (helm.benchmark.metrics, efficiency_metrics and basic_metrics)."""
LOWER = re.compile(r"perplexity|bits_per_byte|toxi|wer_score|cer_score|loss|error|bias|calibration|^ece_")
CLOSE = 1e-3
Key = tuple[str, str, int]
"""Instance, perturbation, trial."""


@dataclass
class Answer:
    """One answer, or several requests that make up one."""

    item: str = ""
    text: str | None = None
    answer: str | None = None
    error: str | None = None
    seconds: float | None = None
    prompt: str = ""
    choices: int = 0
    cluster: str | None = None
    split: str = ""
    scores: dict[str, float | None] = field(default_factory=dict)


def is_run(path: Path) -> bool:
    """Whether a file is the specification of a run."""
    if path.name != "run_spec.json":
        return False
    try:
        data = json_of(path)
    except UsageError:
        return True
    return isinstance(data, dict) and "adapter_spec" in data and "scenario_spec" in data


def read(path: Path, asked: Asked) -> Found:
    """All metrics of one run. Raises UsageError."""
    spec = json_of(path)
    adapter = mapping(mapping(spec).get("adapter_spec"))
    checkpoint, step = checkpoint_of(
        asked, path, str(adapter.get("model") or ""), str(adapter.get("model_deployment") or ""))  # fmt: skip
    task = asked.task or _task(str(mapping(spec).get("name") or path.parent.name))
    shots = adapter.get("max_train_instances")
    facts: dict[str, Any] = {"checkpoint": checkpoint, "step": step, "kind": "model", "family": family_of(task),
                             "harness": "helm", "version": "", "source": str(path),
                             "n_shot": shots if isinstance(shots, int) else None}  # fmt: skip
    found = Found()
    answers = _state(path, found.notes)
    _scores(path, answers, found.notes)
    if not any(answer.scores for answer in answers.values()):
        raise UsageError(f"{path.parent} holds no score of answers in {INSTANCES}. Give the whole folder of a run that "
                         "ended.")  # fmt: skip
    choices = str(adapter.get("method") or "").startswith("multiple_choice")
    aggregates = _aggregates(path)
    groups: dict[tuple[str, str], dict[Key, Answer]] = {}
    for key, answer in answers.items():
        groups.setdefault((answer.split, key[1]), {})[key] = answer
    several = len({split for split, _ in groups}) > 1
    for (split, changed), group in sorted(groups.items()):
        label = "".join(f"@{part}" for part in (split if several else "", changed) if part)
        for metric in sorted({m for answer in group.values() for m in answer.scores}):
            one = _sheet(f"{task}:{metric}{label}", metric, group, choices, facts | {"filter": changed or "none"})
            found.sheets.append(one)
            found.notes += _claims(path, one, None if changed else aggregates.get((metric, split)))
    failed = sum(answer.error is not None for answer in answers.values())
    if failed:
        found.notes.append(f"{path.parent.name}: {failed:,} of {len(answers):,} requests failed: these answers have no "
                           "score.")  # fmt: skip
    return found


def _task(name: str) -> str:
    """The run's name without its model."""
    head, _, arguments = name.partition(":")
    kept = [a for a in arguments.split(",") if a and not a.startswith(("model=", "model_deployment="))]
    return ":".join(filter(None, (head, ",".join(kept))))


def _list(path: Path, name: str, key: str = "") -> list[Mapping[str, Any]]:
    """The objects of a list in a file beside; [] where there is no such file. Raises UsageError."""
    place = path.with_name(name)
    if not place.is_file():
        return []
    data = json_of(place)
    data = mapping(data).get(key) if key else data
    if not isinstance(data, list):
        raise UsageError(f"{place} holds no list, so it is none of HELM's. Fetch it again.")
    return [mapping(entry) for entry in data]


def _changed(value: Any) -> str:
    return str(mapping(value).get("name") or "")


def _state(path: Path, notes: list[str]) -> dict[Key, Answer]:
    """What was asked and answered."""
    answers: dict[Key, Answer] = {}
    for state in _list(path, STATE, "request_states"):
        instance, result = mapping(state.get("instance")), mapping(state.get("result"))
        trial = state.get("train_trial_index")
        key = str(instance.get("id")), _changed(instance.get("perturbation")), trial if isinstance(trial, int) else 0
        one = answers.setdefault(key, _asked(instance))
        one.prompt += str(mapping(state.get("request")).get("prompt") or "")
        seconds = numeric(result.get("request_time"))
        one.seconds = one.seconds if seconds is None else (one.seconds or 0.0) + seconds
        if not result or result.get("success") is False:
            one.error = str(result.get("error") or "the request has no result")[:500]
        completions = result.get("completions")
        if one.answer is None and isinstance(completions, list) and completions:
            said = str(mapping(completions[0]).get("text") or "").strip()
            one.answer = str(mapping(state.get("output_mapping")).get(said, said))[:2_000]
    if not answers:
        notes.append(f"{path.parent.name} has no {STATE}: items are named by their place in the benchmark, so another "
                     "version of it would pair other questions, and failed requests are not seen.")  # fmt: skip
    return answers


def _asked(instance: Mapping[str, Any]) -> Answer:
    # Before 2023 the input was the text itself.
    given = instance.get("input")
    text = given if isinstance(given, str) else str(mapping(given).get("text") or "")
    references = instance.get("references")
    outputs = [mapping(r).get("output") for r in references] if isinstance(references, list) else []
    texts = [o if isinstance(o, str) else str(mapping(o).get("text") or "") for o in outputs]
    content = item_of(text, *texts) if text or any(texts) else f"instance {instance.get('id')}"
    return Answer(content, text[:2_000], choices=len(texts), split=str(instance.get("split") or ""),
                  cluster=cluster_of(mapping(instance.get("extra_data"))))  # fmt: skip


def _scores(path: Path, answers: dict[Key, Answer], notes: list[str]) -> None:
    """Adds the scores to the answers, and answers that only have scores."""
    known, doubled = bool(answers), 0
    for entry in _list(path, INSTANCES):
        trial = entry.get("train_trial_index")
        key = str(entry.get("instance_id")), _changed(entry.get("perturbation")), trial if isinstance(trial, int) else 0
        stats = entry.get("stats")
        for stat in map(mapping, stats if isinstance(stats, list) else []):
            name = mapping(stat.get("name"))
            metric = str(name.get("name") or "")
            if not metric or NO_ANSWER.match(metric):
                continue
            one = answers.setdefault(key, Answer(f"instance {key[0]}", split=str(name.get("split") or "")))
            if metric in one.scores:
                doubled += 1
            else:
                one.scores[metric] = numeric(stat.get("mean"))
    if doubled:
        notes.append(f"{path.parent.name}: {doubled:,} scores are there more than once for one answer: the first one "
                     "counts.")  # fmt: skip
    unasked = sum(not answer.text and not answer.prompt for answer in answers.values())
    if known and unasked:
        notes.append(f"{path.parent.name}: {unasked:,} scored instances are not in {STATE}: they are named by their "
                     "id.")  # fmt: skip


def _sheet(task: str, metric: str, group: Mapping[Key, Answer], choices: bool, facts: Mapping[str, Any]) -> Sheet:
    keys = sorted(group, key=lambda k: (len(k[0]), k[0], k[2]))
    instances = list(dict.fromkeys((key[0], key[1]) for key in keys))
    first = {(key[0], key[1]): group[key].item for key in reversed(keys)}
    names = dict(zip(instances, counted(first[one] for one in instances), strict=True))
    answers = [group[key] for key in keys]
    options = [a.choices for a in answers]
    prompts = sorted(item_of(a.item, a.prompt) for a in answers if a.prompt)
    return Sheet(
        task=task, metric=metric, higher_is_better=not LOWER.search(metric.lower()),
        prompt_hash=item_of(*prompts) if prompts and len(prompts) == len(answers) else "",
        chance=sum(1 / n for n in options) / len(options) if choices and metric.endswith("exact_match")
        and min(options) > 1 else None,
        items=pd.DataFrame({
            "item": [names[key[0], key[1]] for key in keys], "sample": [key[2] for key in keys],
            "score": [None if a.error else a.scores.get(metric) for a in answers],
            "answer": [a.answer for a in answers], "cluster": [a.cluster for a in answers],
            "latency_s": [a.seconds for a in answers], "error": [a.error for a in answers],
            "text": [a.text for a in answers]}), **facts)  # fmt: skip


def _aggregates(path: Path) -> dict[tuple[str, str], float]:
    """The run's own means by metric and split, of questions as they are."""
    found = {}
    for stat in _list(path, STATS):
        name, mean = mapping(stat.get("name")), numeric(stat.get("mean"))
        if mean is not None and not name.get("perturbation") and not name.get("sub_split"):
            found[str(name.get("name")), str(name.get("split") or "")] = mean
    return found


def _claims(path: Path, sheet: Sheet, said: float | None) -> Iterator[str]:
    scores = sheet.items["score"].astype(float)
    unscored = int((scores.isna() & sheet.items["error"].isna()).sum())
    if unscored:
        yield f"{path.parent.name}: {unscored:,} of {len(scores):,} answers have no {sheet.metric}."
    mean = float(scores.mean())
    if said is not None and scores.notna().all() and not abs(said - mean) <= CLOSE * max(1.0, abs(said)):
        yield f"{path.parent.name}: {STATS} says {sheet.metric} {said:.4g}, and its answers have a mean of {mean:.4g}."
