"""Is a review what it was, and who says so? Every difference is one line with its file or row.

The evidence is judged again by the policy, as of the review's day and as of today (a waiver may have expired), so that
an answer that was edited and signed anew is found, too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from checks.review.bundle import SIGNED, digest, evidence_files
from checks.review.decide import Decided, judge
from checks.review.evidence import read_evidence
from checks.review.policy import Policy, parse_policy
from checks.review.report import report_page
from checks.review.signing import checked
from trainvitals.errors import TrainVitalsError, UsageError
from trainvitals.untrusted import parse_json

MOST_DIFFERENCES = 50


@dataclass(frozen=True, slots=True)
class Verified:
    """What verification found."""

    decision: str
    """As decision.json says."""
    changed: tuple[str, ...]
    """What is not as it was; empty where all is."""
    open: tuple[str, ...]
    """What keeps this from being a release: too few signers, an expired waiver."""
    signers: tuple[str, ...]
    """Trusted ones."""

    @property
    def exit_code(self) -> int:
        """0: whole, GO, and signed by enough trusted keys; 2: changed or NO-GO; 3: otherwise."""
        if self.changed or self.decision == "NO-GO":
            return 2
        return 0 if self.decision == "GO" and not self.open else 3


def verify(folder: Path, trusted: Mapping[str, Ed25519PublicKey], needed: int | None, today: dt.date) -> Verified:
    """Look at everything.

    Args:
        folder: the review.
        trusted: fingerprint -> key, from outside of the review.
        needed: signers; None takes the policy's number, which is then itself only as good as its signatures.
        today: day (UTC) on which waivers must hold.
    """
    try:
        record = parse_json((folder / "decision.json").read_bytes())
        decision = str(record["decision"])
        listed = parse_json((folder / "index.json").read_bytes())["files"]
        known = {str(k): str(v["sha256"]) for k, v in listed.items()}
        made = dt.datetime.fromisoformat(record["created"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds no whole review ({type(error).__name__}: {error}). Give the folder that "
            "`trainvitals review --out` wrote."
        ) from error
    changed = _files(folder, known, record)
    still: list[str] = []
    if not changed:
        policy = parse_policy((folder / "policy.toml").read_bytes(), str(folder / "policy.toml"))
        needed = max(needed or 1, policy.sign.needed)
        changed, still = _judged_again(folder, policy, record, made, today)
    signers, forged, unsigned = _signatures(folder, trusted, needed or 1)
    return Verified(decision, tuple([*changed, *forged][:MOST_DIFFERENCES]), tuple([*still, *unsigned]), signers)


def _files(folder: Path, known: Mapping[str, str], record: Mapping[str, Any]) -> list[str]:
    """Files that are not those of the index, and parts that are not those of the decision."""
    found: list[str] = []
    try:
        there = dict(evidence_files(folder))
    except TrainVitalsError as error:
        return [str(error)]
    for name, sha in known.items():
        path = there.get(name)
        if path is None or not path.is_file():
            found.append(f"{name} is gone.")
        elif (now := digest(path)) != sha:
            found.append(f"{name} was changed: SHA-256 {sha[:12]}... when it was judged, {now[:12]}... now.")
    found += [f"{name} was added: it is not in the index." for name in there if name not in known]
    digests = record.get("digests") or {}
    if digest(folder / "index.json") != digests.get("index.json"):
        found.append("index.json is not the one that the decision was made on.")
    if (
        (folder / "policy.toml").is_file()
        and digest(folder / "policy.toml") != digests.get("policy.toml")
        and not any(line.startswith("policy.toml") for line in found)
    ):
        found.append("policy.toml is not the one that the decision was made by.")
    return found


def _judged_again(
    folder: Path, policy: Policy, record: Mapping[str, Any], made: dt.datetime, today: dt.date
) -> tuple[list[str], list[str]]:
    try:
        evidence = read_evidence(folder / "evidence", policy)
        again, now = judge(policy, evidence, made.date()), judge(policy, evidence, today)
        page = report_page(dict(record), policy)
    except (TrainVitalsError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"The evidence cannot be judged again ({type(error).__name__}: {error})."], []
    found = _rows(record, again)
    report = folder / "report.html"
    if not report.is_file():
        found.append("report.html is gone.")
    elif report.read_bytes() != page.encode():
        found.append("report.html was changed: it is not the page that decision.json makes.")
    still = (
        [f"Today the decision is {now.decision}, not {again.decision}: {line}" for line in now.reasons[:1]]
        if now.decision != again.decision
        else []
    )
    return found, still


def _rows(record: Mapping[str, Any], again: Decided) -> list[str]:
    """Rows and decision that the evidence does not give."""
    found = []
    said = {str(r.get("name")): r for r in record.get("rows", []) if isinstance(r, dict)}
    for row in again.rows:
        new, old = row.to_json(), said.pop(row.name, None)
        if old is None:
            found.append(f"decision.json: the row {row.name} is gone ({row.verdict}).")
            continue
        for key, value in new.items():
            if not _same(old.get(key), value):
                found.append(
                    f"decision.json: {row.name}: {key} is {old.get(key)!r:.60}, and the evidence gives {value!r:.60}."
                )
    found += [f"decision.json: the row {name} is not in the evidence." for name in said]
    for key, right in (
        ("decision", again.decision),
        ("reasons", list(again.reasons)),
        ("what_would_change_it", list(again.what_would_change_it)),
        ("company", list(again.company)),
    ):
        if record.get(key) != right:
            found.append(f"decision.json: {key} is {record.get(key)!r:.60}, and the evidence gives {right!r:.60}.")
    return found


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float) and isinstance(new, float):
        return abs(old - new) <= 1e-9 * max(1.0, abs(new))  # another machine's last digits are no edit
    return bool(old == new)


def _signatures(
    folder: Path, trusted: Mapping[str, Ed25519PublicKey], needed: int
) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Trusted signers, forged or stale signatures, and what is lacking."""
    digests = {name: digest(folder / name) for name in SIGNED if (folder / name).is_file()}
    signers: dict[str, str] = {}
    forged: list[str] = []
    lacking: list[str] = []
    for path in sorted((folder / "signatures").glob("*.json")):
        name = f"signatures/{path.name}"
        try:
            signed = checked(path.read_bytes(), trusted)
            subjects = {s["name"]: s["digest"]["sha256"] for s in signed.statement["subject"]}
            signer = signed.statement["predicate"]["signer"]
            who = f"{signer['name']!s:.80} ({signer['role']!s:.80}), {signer['time']!s:.40}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            forged.append(f"{name} is no signature of a review: {error}.")
            continue
        if signed.claimed:
            forged.append(f"{name} is forged: it says {who}, and the key that it names did not make that signature.")
            continue
        if not signed.key:
            lacking.append(
                f"{name} says {who}, and no trusted key made that signature: its signer is unknown, and it does "
                "not count."
            )
            continue
        stale = [n for n in SIGNED if subjects.get(n) != digests.get(n)]
        if stale:
            forged.append(f"{name}: {who} signed another {' and another '.join(stale)}.")
        else:
            signers[signed.key] = who
    if len(signers) < needed:
        lacking.append(
            f"{len(signers)} of {needed} trusted signatures are there"
            + ("." if trusted else ": no trusted key was given; give --trusted-keys.")
        )
    return tuple(signers.values()), forged, lacking
