"""What a review rests on, copied into its folder, so that anybody can judge it again without the run.

    gather(run, policy, policy_path, folder)      # reads the run, writes DIR/evidence
    read_evidence(folder, policy)                 # what the rows are judged from, now and when it is verified

DIR/evidence/candidate, baseline    results per item, as run folders keep them
DIR/evidence/facts.json             names, steps, checkpoint noise, copies found, canaries found
DIR/evidence/findings.json          what the checks say of the training, where the policy asks
DIR/evidence/company.json           where a failed task fell, which items it lost, what the training did then
DIR/evidence/audits, human          verdict per item of audits; labels of humans
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checks.evals.items import columns, fingerprint
from checks.evals.noise import Noise, noise_between
from checks.evals.safety import leaks
from checks.review.policy import Policy
from trainvitals.errors import TrainVitalsError, UsageError
from trainvitals.evals import Evals, Sheet, read_evals, write_sheet
from trainvitals.untrusted import parse_json

MOST_SECRETS = 1_000
MOST_LABELS = 8 << 20


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that rows are judged from."""

    candidate: Mapping[str, Sheet]
    baseline: Mapping[str, Sheet]
    facts: Mapping[str, Any]
    audits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Task -> item -> verdict."""
    human: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """Safety task -> item -> whether a human saw a violation."""
    findings: Mapping[str, Any] | None = None
    company: Mapping[str, Any] = field(default_factory=dict)
    """What goes with tasks that fail: see `checks.review.explain`."""

    @property
    def noise(self) -> Mapping[str, Noise]:
        """Of each task's checkpoints, where enough are known."""
        return {task: Noise(float(one["sd"]), float(one["df"])) for task, one in self.facts.get("noise", {}).items()}

    @property
    def copies(self) -> Mapping[str, str]:
        """Task -> the other checkpoint whose results the candidate's are."""
        return dict(self.facts.get("copies", {}))

    def source(self, task: str) -> str:
        """Where the candidate's results come from."""
        sheet = self.candidate.get(task)
        return "" if sheet is None else " ".join(str(part) for part in (sheet.harness, sheet.source) if part)


def used_tasks(policy: Policy) -> list[str]:
    """Names of results that the policy asks for."""
    named = [
        *policy.tasks,
        *policy.safety,
        *policy.cost,
        *policy.latency,
        *(rule.over_refusal for rule in policy.safety.values() if rule.over_refusal),
    ]
    return list(dict.fromkeys(named))


def gather(run: Path, policy: Policy, place: Path, folder: Path) -> Evidence:
    """Copy what the policy asks for into `folder`, and read it back from there.

    Args:
        run: the run folder.
        policy: what is asked.
        place: folder that the policy's paths start from.
        folder: `evidence` in the review's folder.

    Raises:
        UsageError: a checkpoint that the policy names is not there.
    """
    own = read_evals(run)
    other = read_evals(place / policy.baseline_run) if policy.baseline_run else own
    candidate = _checkpoint(own, policy.candidate, "candidate", run) or _newest(own)
    baseline = _checkpoint(other, policy.baseline, "baseline", place / policy.baseline_run)
    if candidate and candidate == baseline and not policy.baseline_run:
        raise UsageError(f"The candidate and the baseline are both {candidate}. Name two checkpoints in the policy.")
    tools = bool(policy.latency) or policy.secrets is not None
    wanted = [t for t in own.tasks if tools or t in used_tasks(policy)]
    folder.mkdir(parents=True, exist_ok=True)
    for who, evals, name in (("candidate", own, candidate), ("baseline", other, baseline)):
        (folder / who).mkdir(exist_ok=True)
        for task in wanted if who == "candidate" else [t for t in other.tasks if tools or t in used_tasks(policy)]:
            sheet = evals.sheet(task, name) if name else None
            if sheet is not None:
                write_sheet(folder / who, sheet)
    facts = {
        "run": run.name,
        "candidate": candidate,
        "baseline": baseline,
        "baseline_run": policy.baseline_run,
        "steps": [_step(other, baseline), _step(own, candidate)],
        "problems": [str(p)[:300] for p in (*own.problems, *(other.problems if other is not own else ()))][:50],
        "noise": {t: asdict(one) for t in policy.tasks if (one := noise_between(own, t, baseline, candidate))},
        "copies": _copies(own, other, candidate, baseline, used_tasks(policy)),
        "secrets": _secrets(own, candidate, policy, place),
    }
    write_evidence(folder / "facts.json", facts)
    for task, rule in policy.tasks.items():
        if rule.audit:
            _copy_audit(place / rule.audit, folder / "audits", task)
    for task, safety in policy.safety.items():
        if safety.human:
            _copy_labels(place / safety.human, folder / "human", task)
    if policy.training.require:
        write_evidence(folder / "findings.json", findings_of(run))
    return read_evidence(folder, policy)


def read_evidence(folder: Path, policy: Policy) -> Evidence:
    """The evidence that lies in a review's folder."""
    facts = parse_json((folder / "facts.json").read_bytes())
    sheets = []
    for who in ("candidate", "baseline"):
        evals = read_evals(folder / who)
        sheets.append(
            {t: sheet for t in evals.tasks if facts.get(who) and (sheet := evals.sheet(t, facts[who])) is not None}
        )
    audits = {task: _read_map(folder / "audits", task) for task, rule in policy.tasks.items() if rule.audit}
    human = {task: _read_map(folder / "human", task) for task, rule in policy.safety.items() if rule.human}
    findings, company = folder / "findings.json", folder / "company.json"
    return Evidence(
        sheets[0],
        sheets[1],
        facts,
        {t: a for t, a in audits.items() if a is not None},
        {t: {k: v == "1" for k, v in h.items()} for t, h in human.items() if h is not None},
        parse_json(findings.read_bytes()) if findings.is_file() else None,
        parse_json(company.read_bytes()) if company.is_file() else {},
    )


def _checkpoint(evals: Evals, name: str, who: str, run: Path) -> str:
    if name and name not in evals.checkpoints:
        has = ", ".join(str(c) for c in list(evals.checkpoints)[-5:]) or "none"
        raise UsageError(
            f"{run} has no results of the {who} {name!r:.80}. It has {has}. Import them with "
            "`trainvitals evals import`, or mend the policy."
        )
    return name


def _newest(evals: Evals) -> str:
    return max(evals.checkpoints, key=lambda c: s if (s := _step(evals, c)) is not None else -1, default="")


def _step(evals: Evals, checkpoint: str) -> int | None:
    steps = [s.step for t in evals.tasks if (s := evals.sheet(t, checkpoint)) is not None and s.step is not None]
    return max(steps, default=None)


def _copies(own: Evals, other: Evals, candidate: str, baseline: str, tasks: Iterable[str]) -> dict[str, str]:
    found = {}
    for task in tasks:
        mine = own.sheet(task, candidate) if candidate else None
        if mine is None:
            continue
        mark = fingerprint(mine)
        places = [(own, c) for c in own.checkpoints if c != candidate] + (
            [(other, c) for c in other.checkpoints] if other is not own else []
        )
        for evals, checkpoint in places:
            theirs = evals.sheet(task, checkpoint)
            if theirs is not None and _alike(theirs, mine) and fingerprint(theirs) == mark:
                found[task] = checkpoint
                break
    return found


def _alike(one: Sheet, other: Sheet) -> bool:
    """Whether it is worth to compare value for value."""
    if len(one.items) != len(other.items):
        return False
    return bool(np.isclose(one.items["score"].sum(), other.items["score"].sum()))


def _secrets(evals: Evals, candidate: str, policy: Policy, place: Path) -> dict[str, Any] | None:
    """How many canaries left the model, and in which results; never the canaries themselves."""
    if policy.secrets is None:
        return None
    path = place / policy.secrets.file
    try:
        canaries = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"The canary secrets {path} cannot be read ({error}). Mend [secrets] file.") from error
    if not canaries or len(canaries) > MOST_SECRETS:
        raise UsageError(f"{path} holds {len(canaries)} canary secrets; 1 to {MOST_SECRETS} are looked for.")
    hits, read = [], 0
    for task in evals.tasks:
        sheet = evals.sheet(task, candidate) if candidate else None
        for name in ("text", "answer"):
            words = None if sheet is None else columns(sheet, name)
            if words is None or sheet is None:
                continue
            read += int(words.notna().sum())
            for row, text in words.dropna().astype(str).items():
                for number, canary in enumerate(canaries, start=1):
                    try:
                        ways = leaks(text, canary)
                    except ValueError as error:
                        raise UsageError(f"{path}, canary {number}: {error}. Take a longer one.") from error
                    if ways:
                        hits.append(
                            {
                                "task": task,
                                "item": str(sheet.items.loc[row, "item"])[:80],
                                "canary": number,
                                "ways": list(ways),
                            }
                        )
    return {"canaries": len(canaries), "texts": read, "hits": hits[:100], "leaks": len(hits)}


def findings_of(run: Path) -> dict[str, Any]:
    """The judge's answer about the training; its reason where there is none to judge."""
    from checks.judge import run_checks
    from trainvitals.store import open_run

    try:
        return run_checks(open_run(str(run))).answer_json()
    except TrainVitalsError as error:
        return {"error": str(error)[:300], "findings": [], "incidents": []}


def _copy_audit(audit: Path, folder: Path, task: str) -> None:
    """Verdict per item of an audit; nothing where there is none to read, which a row says."""
    import pyarrow.parquet as pq

    path = audit / "items.parquet" if audit.is_dir() else audit
    try:
        table = pq.read_table(path).to_pandas()
    except (OSError, ValueError):
        return
    name = next((c for c in ("item", "item_id", "id") if c in table), "")
    if name and "verdict" in table:
        rows = (
            table[table["benchmark"] == task] if "benchmark" in table and (table["benchmark"] == task).any() else table
        )
        _write_map(folder, task, dict(zip(rows[name].astype(str), rows["verdict"].astype(str), strict=True)))


def _copy_labels(path: Path, folder: Path, task: str) -> None:
    try:
        if path.stat().st_size > MOST_LABELS:
            raise UsageError(f"{path} has more than {MOST_LABELS >> 20} MB. Give labels of a sample.")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise UsageError(f"The human labels {path} cannot be read ({error}). Mend [safety.{task}] human.") from error
    if not rows or not {"item", "violation"} <= rows[0].keys():
        raise UsageError(f"{path} needs the columns item and violation (0 or 1).")
    if wrong := next((row for row in rows if row["violation"] not in ("0", "1")), None):
        raise UsageError(f"{path}: the violation of {wrong['item']!r:.60} is {wrong['violation']!r:.20}, not 0 or 1.")
    _write_map(folder, task, {row["item"]: row["violation"] for row in rows})


def _write_map(folder: Path, task: str, values: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_evidence(folder / _file(task), {"task": task, "values": dict(values)})


def _read_map(folder: Path, task: str) -> dict[str, str] | None:
    path = folder / _file(task)
    return {str(k): str(v) for k, v in parse_json(path.read_bytes())["values"].items()} if path.is_file() else None


def _file(task: str) -> str:
    from urllib.parse import quote

    return f"{quote(task, safe='')[:200]}.json"


def write_evidence(path: Path, value: Any) -> None:
    """A JSON file of the evidence."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False, sort_keys=True), encoding="utf-8")
