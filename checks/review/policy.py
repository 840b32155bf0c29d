"""release.toml: what a release must show. A wrong line is one clear error, never a rule that is skipped.

baseline = "step-1000"          # a checkpoint of the run; the candidate is the newest one
[tasks.mmlu]
margin = 0.015                  # 1.5 points may be lost
[safety.jailbreak]
limit = 0.01                    # of the prompts at most 1 %, with 95 % confidence
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from trainvitals.errors import UsageError

MOST_BYTES = 1 << 20
MOST_MARGIN = 0.2
"""A score may fall by a fifth at the most: a larger margin was meant in per cent."""
MOST_TASKS = 300
UNWAIVABLE = ("task", "family", "slice", "safety", "secrets", "waiver", "policy")
"""Kinds of rows that no waiver lifts: what they say is what the release is about."""
UNWAIVABLE_CHECKS = ("loss.nonfinite", "loss.divergence")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRule:
    """[tasks.NAME]"""

    margin: float
    """Score that may be lost (scores run from 0 to 1)."""
    chance: float | None = None
    """Score of guessing, where the results do not say."""
    audit: str = ""
    """Folder of a contamination audit; only items that it calls clean count then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRule:
    """[families.NAME]: the mean over tasks. `all` means all primary tasks."""

    margin: float
    tasks: tuple[str, ...] = ()
    """Primary tasks; those of this family where empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyRule:
    """[safety.TASK]"""

    limit: float
    """Largest share of violations, with 95 % confidence."""
    categories: Mapping[str, float] = field(default_factory=dict)
    """Limit of single categories."""
    over_refusal: str = ""
    """Task of harmless prompts; its violations are refusals."""
    over_refusal_limit: float | None = None
    human: str = ""
    """CSV with the columns item and violation (0 or 1), as a human judged."""
    kappa: float = 0.6
    """Least agreement of the judge with the human; 0.6 is "substantial" (Landis and Koch 1977)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRule:
    """[latency.TOOL_OR_TASK]"""

    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    rise: float | None = None
    """Relative rise of p95 against the baseline that is allowed: 0.2 is 20 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRule:
    """[cost.TASK]"""

    usd_per_solved: float | None = None
    tokens_per_solved: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRule:
    """[training]"""

    require: tuple[str, ...] = ()
    """Checks or areas of `trainvitals check` that must pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsRule:
    """[secrets]"""

    file: str
    """Canary secrets, one a line; the file stays outside of the review."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """[quotas]"""

    missing: float = 0.01
    """Share of items that may lack a score on either side, errors and time-outs included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRule:
    """[sign]"""

    needed: int = 1
    """Distinct trusted keys that must have signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """[[waivers]]"""

    row: str
    reason: str
    owner: str
    expires: dt.date
    """Last day on which it holds (UTC)."""
    approver: str = ""
    created: dt.date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole file."""

    version: int = 1
    candidate: str = ""
    """Checkpoint; the one with the largest step where empty."""
    baseline: str = ""
    """Checkpoint that the candidate is held against."""
    baseline_run: str = ""
    """Run folder of the baseline, where it is another one; relative to the policy."""
    tasks: Mapping[str, TaskRule] = field(default_factory=dict)
    families: Mapping[str, FamilyRule] = field(default_factory=dict)
    safety: Mapping[str, SafetyRule] = field(default_factory=dict)
    latency: Mapping[str, LatencyRule] = field(default_factory=dict)
    cost: Mapping[str, CostRule] = field(default_factory=dict)
    training: TrainingRule = field(default_factory=TrainingRule)
    secrets: SecretsRule | None = None
    quotas: Quotas = field(default_factory=Quotas)
    sign: SignRule = field(default_factory=SignRule)
    waivers: tuple[Waiver, ...] = ()


_TABLES: Mapping[str, type] = {
    "tasks": TaskRule,
    "families": FamilyRule,
    "safety": SafetyRule,
    "latency": LatencyRule,
    "cost": CostRule,
}
_SINGLE: Mapping[str, type] = {"training": TrainingRule, "secrets": SecretsRule, "quotas": Quotas, "sign": SignRule}
_SHARES = ("limit", "over_refusal_limit", "missing")
Rule = TypeVar("Rule")


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        UsageError: it cannot be read, or a line of it means nothing here.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}). Write one with `trainvitals review RUN --init`."
        ) from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} has {len(data) / 1e6:.0f} MB, and no policy has more than 1. Give the policy file.")
    return parse_policy(data, str(path))


def parse_policy(data: bytes, where: str) -> Policy:
    """As `read_policy`, from bytes; `where` names them in errors."""
    try:
        raw = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no TOML: {error}. Mend that line.") from error
    given: dict[str, Any] = {}
    for name, value in raw.items():
        if name in _TABLES:
            table = _of(dict, value, f"{where}: [{name}]")
            given[name] = {key: _rule(_TABLES[name], inner, f"{where}: [{name}.{key}]") for key, inner in table.items()}
        elif name in _SINGLE:
            given[name] = _rule(_SINGLE[name], value, f"{where}: [{name}]")
        elif name == "waivers":
            given[name] = tuple(
                _rule(Waiver, one, f"{where}: [[waivers]] {i + 1}")
                for i, one in enumerate(_of(list, value, f"{where}: waivers"))
            )
        else:
            given[name] = value
    policy: Policy = _rule(Policy, given, where, built=True)
    _check(policy, where)
    return policy


def _of(kind: type, value: Any, place: str) -> Any:
    if not isinstance(value, kind):
        raise UsageError(f"{place} is {value!r:.60}, and a {'table' if kind is dict else 'list'} is needed.")
    return value


def _rule(kind: type[Rule], raw: Any, place: str, built: bool = False) -> Rule:
    """A data class from a TOML table: every key known, every value of its type."""
    types = get_type_hints(kind)
    for key, value in _of(dict, raw, place).items():
        if key not in types:
            near = difflib.get_close_matches(key, types, 1, 0.5)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(types)}."
            raise UsageError(f"{place} has no setting {key!r:.60}. {hint}")
        if not (built and isinstance(value, (dict, tuple, *_SINGLE.values()))) and not _fits(value, types[key]):
            raise UsageError(f"{place}: {key} is {value!r:.60}, which is not {_words(types[key])}.")
    for one in fields(kind):  # type: ignore[arg-type]
        if one.default is MISSING and one.default_factory is MISSING and one.name not in raw:
            raise UsageError(f"{place} has no {one.name}. Add it: it is {_words(types[one.name])}.")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})


def _fits(value: Any, kind: Any) -> bool:
    options = get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if get_origin(kind) not in (None,) and type(None) not in options:
        return isinstance(value, dict) and all(_fits(one, float) for one in value.values())
    kind = next((one for one in options if one is not type(None)), kind)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is dt.date:
        return type(value) is dt.date
    return type(value) is kind


def _words(kind: Any) -> str:
    if kind in (float, float | None):
        return "a finite number"
    if kind in (dt.date, dt.date | None):
        return "a date such as 2027-01-31, without quotes"
    return {str: "text in quotes", int: "a whole number"}.get(
        kind, "a list of names" if get_origin(kind) is tuple else "a table of numbers"
    )


def _check(policy: Policy, where: str) -> None:
    """What types cannot say."""
    if policy.version != 1:
        raise UsageError(f"{where}: version is {policy.version}, and this tool reads version 1. Upgrade trainvitals.")
    if len(policy.tasks) > MOST_TASKS:
        raise UsageError(f"{where} has {len(policy.tasks)} tasks, and at most {MOST_TASKS} are judged. Choose some.")
    for table, rules in (("tasks", policy.tasks), ("families", policy.families)):
        for name, rule in rules.items():
            if not 0 < rule.margin <= MOST_MARGIN:
                cents = rule.margin / 100
                hint = f" Did you mean {cents:g}?" if 0 < cents <= MOST_MARGIN else ""
                raise UsageError(
                    f"{where}: [{table}.{name}] margin is {rule.margin:g}; scores run from 0 to 1, and a "
                    f"margin is above 0 and at most {MOST_MARGIN}.{hint}"
                )
    for name, family in policy.families.items():
        for task in family.tasks:
            if task not in policy.tasks:
                raise UsageError(
                    f"{where}: [families.{name}] names {task!r}, which is no task of this policy. "
                    f"{_near(task, policy.tasks)}"
                )
    for name, safety in policy.safety.items():
        limits = {"limit": safety.limit, "over_refusal_limit": safety.over_refusal_limit, **safety.categories}
        for key, limit in limits.items():
            if limit is not None and not 0 < limit < 1:
                raise UsageError(
                    f"{where}: [safety.{name}] {key} is {limit:g}, and a share between 0 and 1 is needed; "
                    "no number of prompts proves 0."
                )
        if bool(safety.over_refusal) != (safety.over_refusal_limit is not None):
            raise UsageError(f"{where}: [safety.{name}] needs over_refusal and over_refusal_limit, or none of them.")
    for name, latency in policy.latency.items():
        numbers = [latency.p50_s, latency.p95_s, latency.p99_s, latency.rise]
        if all(one is None for one in numbers) or any(one is not None and one <= 0 for one in numbers):
            raise UsageError(f"{where}: [latency.{name}] needs p50_s, p95_s, p99_s or rise, each above 0.")
    for name, cost in policy.cost.items():
        limits_ = [cost.usd_per_solved, cost.tokens_per_solved]
        if all(one is None for one in limits_) or any(one is not None and one <= 0 for one in limits_):
            raise UsageError(f"{where}: [cost.{name}] needs usd_per_solved or tokens_per_solved, each above 0.")
    if not 0 <= policy.quotas.missing <= 0.1:
        raise UsageError(f"{where}: [quotas] missing is {policy.quotas.missing:g}; it is a share from 0 to 0.1.")
    if policy.sign.needed < 1:
        raise UsageError(f"{where}: [sign] needed is {policy.sign.needed}; a release has one signer at least.")
    for waiver in policy.waivers:
        if not waiver.reason.strip() or not waiver.owner.strip():
            raise UsageError(
                f"{where}: the waiver of {waiver.row} has no reason or no owner. Say why, and who answers."
            )
    if (policy.tasks or any(one.rise for one in policy.latency.values())) and not policy.baseline:
        raise UsageError(f"{where} has tasks and no baseline. Name the checkpoint that they are held against.")


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"Did you mean {near[0]}?" if near else f"There are {', '.join(list(known)[:8])}."
