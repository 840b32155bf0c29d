"""A review's folder: evidence, its index, the decision, the report, what is published, and the signatures.

    evidence/            what was judged
    policy.toml          the policy, byte for byte
    index.json           bytes and SHA-256 of every file of the two above
    decision.json        decision, reasons, rows, digests of policy and index
    report.html          the same for people
    model_card.md        section for a model card; eval_results.yaml and model_index.yaml for the Hugging Face Hub
    signatures/*.json    one DSSE envelope per signer

The order is that of the digests: a signature covers decision.json, report.html, policy.toml and index.json, and through
the index every file of the evidence.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checks.review.card import write_cards
from checks.review.decide import Decided, judge
from checks.review.evidence import findings_of, gather, read_evidence, write_evidence
from checks.review.explain import explain, failed_tasks
from checks.review.policy import Policy, parse_policy
from checks.review.report import report_page
from trainvitals import __version__
from trainvitals.errors import UsageError
from trainvitals.untrusted import parse_json

SIGNED = ("policy.toml", "index.json", "decision.json", "report.html")
MOST_FILES = 10_000


def write_review(run: Path, policy_path: Path, out: Path, now: dt.datetime, last: Path | None) -> Decided:
    """Judge a run by a policy and write the folder.

    Raises:
        UsageError: the policy, or `out`, cannot be used.
    """
    if not run.is_dir():
        raise UsageError(f"{run} is no run folder. Give the folder that `trainvitals evals import --run` wrote to.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already. Choose another --out: a review is never written over.")
    try:
        data = policy_path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{policy_path} cannot be read ({error.strerror}). Write one with `trainvitals review {run} --init`."
        ) from error
    policy = parse_policy(data, str(policy_path))
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as name:
        folder = Path(name) / "review"
        folder.mkdir()
        (folder / "policy.toml").write_bytes(data)
        evidence = gather(run, policy, policy_path.absolute().parent, folder / "evidence")
        decided = judge(policy, evidence, now.date())
        if failed_tasks(decided.rows):
            findings = evidence.findings or findings_of(run)
            write_evidence(folder / "evidence" / "company.json", explain(run, evidence, decided.rows, findings))
            evidence = read_evidence(folder / "evidence", policy)
            decided = judge(policy, evidence, now.date())
        write_json(folder / "index.json", index(folder))
        record = decision_record(folder, policy, decided, dict(evidence.facts), now, last)
        write_json(folder / "decision.json", record)
        (folder / "report.html").write_text(report_page(record, policy), encoding="utf-8")
        write_cards(folder, record, evidence)
        if out.exists():
            out.rmdir()
        os.rename(folder, out)
    return decided


def decision_record(
    folder: Path, policy: Policy, decided: Decided, facts: dict[str, Any], now: dt.datetime, last: Path | None
) -> dict[str, Any]:
    """decision.json."""
    return {
        "decision": decided.decision,
        "reasons": list(decided.reasons),
        "rows": [row.to_json() for row in decided.rows],
        "what_would_change_it": list(decided.what_would_change_it),
        "company": list(decided.company),
        "created": now.isoformat(timespec="seconds"),
        "tool": f"trainvitals {__version__}",
        "run": facts.get("run"),
        "candidate": facts.get("candidate"),
        "baseline": facts.get("baseline"),
        "steps": facts.get("steps"),
        "problems": facts.get("problems", []),
        "needed_signers": policy.sign.needed,
        "waivers": [
            {"row": w.row, "reason": w.reason, "owner": w.owner, "approver": w.approver, "expires": str(w.expires)}
            for w in policy.waivers
        ],
        "digests": {name: digest(folder / name) for name in ("policy.toml", "index.json")},
        "last": None if last is None else _since(last, decided),
    }


def _since(last: Path, decided: Decided) -> dict[str, Any]:
    """What is another answer than in the last review."""
    path = last / "decision.json"
    try:
        before = parse_json(path.read_bytes())
        verdicts = {r["name"]: r["verdict"] for r in before["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{last} is no review ({error}). Give --last the folder of the review before.") from error
    now = {row.name: row.verdict for row in decided.rows}
    return {
        "decision": before.get("decision"),
        "digest": digest(path),
        "changed": [
            f"{n}: {verdicts[n]} before, {v} now" for n, v in now.items() if n in verdicts and verdicts[n] != v
        ],
        "added": [n for n in now if n not in verdicts],
        "gone": [n for n in verdicts if n not in now],
    }


def index(folder: Path) -> dict[str, Any]:
    """Bytes and digest of every file of the evidence, and of the policy."""
    return {
        "files": {name: {"bytes": path.stat().st_size, "sha256": digest(path)} for name, path in evidence_files(folder)}
    }


def evidence_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of what the index covers. Raises UsageError for links and for far too many files."""
    paths = [folder / "policy.toml", *sorted((folder / "evidence").rglob("*"))]
    if len(paths) > MOST_FILES:
        raise UsageError(f"{folder} holds more than {MOST_FILES:,} files of evidence. That is no review of ours.")
    for path in paths:
        if path.is_symlink():
            raise UsageError(f"{path} is a link. A review's evidence lies in its own folder.")
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """A JSON file that strict parsers take."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
