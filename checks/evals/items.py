"""The items of two results laid side by side, or why they may not be: nothing is compared that is not the same.

Every known way to a wrong GO is refused here: lost, duplicated or other items, errors that were scored, results copied
from another checkpoint, all answers alike, scores of guessing, and items that leaked into the training data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from trainvitals.evals import Sheet

SAME_ANSWERS = 20
"""Items from which on one answer to all of them is a fault of the run, not a finding; convention."""
INFORMATIVE = 2.0
"""Standard errors above guessing that one of the two must reach (Madaan et al. 2024 use 2 for early signal)."""
LEAST_ITEMS = 30
"""Fewer items bear no interval; convention."""
MOST_AUDIT_GAP = 0.01
"""Share of items that an audit may not know."""
SETTINGS = ("metric", "higher_is_better", "kind", "n_shot", "prompt_hash", "filter", "version")

Floats = NDArray[np.float64]


class NotComparable(Exception):
    """Why two results may not be compared, and what would mend it."""

    def __init__(self, why: str, change: str) -> None:
        super().__init__(why)
        self.change = change


@dataclass(frozen=True, slots=True)
class Side:
    """Scores per item of one result, samples averaged; higher is better."""

    scores: pd.Series
    """Item -> score, without those that have none."""
    missing: int
    """Items without a score: errors, time-outs, NaN."""
    wrong: pd.Series
    """Item -> score, those without one counted as 0."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """The same items before and after."""

    items: pd.Index
    before: Floats
    after: Floats
    clusters: NDArray[np.int64] | None
    slices: NDArray[np.object_] | None
    before_itt: Floats
    after_itt: Floats
    """With items that have no score counted as wrong."""
    notes: tuple[str, ...]


def columns(sheet: Sheet, name: str) -> pd.Series | None:
    """A column, or None where the results have none or it is empty."""
    found = sheet.items.get(name)
    return None if found is None or bool(pd.isna(found.to_numpy()).all()) else found


def side(sheet: Sheet, who: str, shares: bool = True) -> Side:
    """One result per item; with `shares` only scores from 0 to 1. Raises NotComparable."""
    items = sheet.items
    names = items["item"].to_numpy(object)
    if nameless := int(pd.isna(names).sum()):
        raise NotComparable(f"{nameless} rows of the {who} name no item", "Import it with item ids.")
    once = pd.Index(names, dtype=object).is_unique
    if not once:
        _refuse_copies(sheet, who)
    scores = pd.to_numeric(items["score"], errors="coerce").to_numpy(float, na_value=np.nan, copy=True)
    scores[~np.isfinite(scores)] = np.nan
    failed = columns(sheet, "error")
    if failed is not None:
        scores[failed.fillna("").astype(str).to_numpy(object) != ""] = np.nan
    least, most = np.fmin.reduce(scores, initial=np.inf), np.fmax.reduce(scores, initial=-np.inf)
    if shares and (least < 0 or most > 1):
        raise NotComparable(
            f"scores of the {who} reach from {least:.3g} to {most:.3g}, and a margin is a share of a score from 0 to 1",
            "Choose a metric between 0 and 1, as accuracy.",
        )
    if not sheet.higher_is_better:
        scores = 1 - scores if shares else -scores
    if pd.api.types.infer_dtype(names, skipna=False) != "string":
        names = names.astype(str).astype(object)
    if once:
        order = np.argsort(names, kind="stable")
        return _one_each(pd.Index(names[order], dtype=object, name="item"), scores[order])
    return _averaged(pd.Series(scores), pd.Series(names, dtype=object, name="item"))


def _refuse_copies(sheet: Sheet, who: str) -> None:
    items = sheet.items
    twice = items.duplicated(["item"] + (["sample"] if columns(sheet, "sample") is not None else []))
    if twice.any():
        example = str(items.loc[twice, "item"].iloc[0])[:60]
        raise NotComparable(
            f"{int(twice.sum())} items are in the {who}'s results more than once ({example!r} is one)",
            "Import the results without the copies.",
        )


def _one_each(index: pd.Index, scores: Floats) -> Side:
    there = ~np.isnan(scores)
    if there.all():
        whole = pd.Series(scores, index)
        return Side(whole, 0, whole)
    wrong = np.where(there, scores, 0.0)
    return Side(pd.Series(scores[there], index[there]), int((~there).sum()), pd.Series(wrong, index))


def _averaged(scores: pd.Series, name: pd.Series) -> Side:
    whole = scores.groupby(name).agg(["mean", "count", "size"])
    there = whole["count"] == whole["size"]
    return Side(whole.loc[there, "mean"], int((~there).sum()), scores.fillna(0.0).groupby(name).mean())


def align(before: Sheet, after: Sheet, quota: float, chance: float | None, clean: Collection[str] | None,
          shares: bool = True) -> Aligned:
    """Both results on their common items.

    Args:
        before: results of the baseline.
        after: results of the candidate.
        quota: share of items that may be missing on either side.
        chance: score of guessing, where the results do not tell.
        clean: items that a contamination audit calls clean; all count where None.
        shares: scores lie between 0 and 1; others, as losses, have no chance to be held against.

    Raises:
        NotComparable: they differ in more than the model, or say nothing.
    """
    differ = [name for name in SETTINGS if getattr(before, name) != getattr(after, name)]
    if differ:
        said = ", ".join(f"{n} ({getattr(before, n)!s:.30} before, {getattr(after, n)!s:.30} now)" for n in differ)
        raise NotComparable(f"the two were not measured alike: they differ in {said}", "Run both with one setting.")
    if _alike(before, after) and fingerprint(before) == fingerprint(after):
        raise NotComparable(
            "the candidate's results are the baseline's, value for value: a copy, not a measurement",
            "Evaluate the candidate itself.",
        )
    one_answer(after)
    b, a = side(before, "baseline", shares), side(after, "candidate", shares)
    if b.wrong.index.equals(a.wrong.index):
        a = _under(a, b.wrong.index)
    every = b.wrong.index if b.wrong.index is a.wrong.index else b.wrong.index.union(a.wrong.index)
    if clean is not None:
        every = every[every.isin(list(clean))]
        if not len(every):
            raise NotComparable("the audit calls none of these items clean", "Replace the leaked items.")
    lost, added = every.difference(a.wrong.index), every.difference(b.wrong.index)
    if len(lost) + len(added) > quota * len(every):
        raise NotComparable(
            f"the items are not the same: {len(lost):,} of the baseline's are not in the candidate's results, "
            f"{len(added):,} are only there",
            "Evaluate both on one set of items.",
        )
    for who, one in (("candidate", a), ("baseline", b)):
        without = len(every.intersection(one.wrong.index).difference(one.scores.index))
        if without > quota * len(every):
            raise NotComparable(
                f"{without:,} of {len(every):,} items have no score in the {who}'s results (errors, "
                f"time-outs or NaN); {quota:.1%} may be missing",
                "Run those items again.",
            )
    both = every.intersection(b.scores.index).intersection(a.scores.index)
    either = every.intersection(b.wrong.index).intersection(a.wrong.index)
    if len(both) < LEAST_ITEMS:
        raise NotComparable(f"{len(both)} items are too few to say anything", f"Use {LEAST_ITEMS} at the least.")
    x, y = b.scores.reindex(both).to_numpy(), a.scores.reindex(both).to_numpy()
    if shares:
        _informative(
            x,
            y,
            next((c for c in (chance, after.chance, before.chance) if c is not None and c == c), None),
            after.higher_is_better,
        )
    left = len(every) - len(both)
    notes = (
        [f"{left} items without a score on one side are left out; counted as wrong they do not change the verdict"]
        if left
        else []
    )
    clusters, keyless = clusters_of(after, both)
    if keyless:
        notes.append(f"{keyless} items have no cluster key and count as one cluster")
    return Aligned(
        both,
        x,
        y,
        clusters,
        first_values(after, "group", both),
        b.wrong.reindex(either).to_numpy(),
        a.wrong.reindex(either).to_numpy(),
        tuple(notes),
    )


def _under(one: Side, index: pd.Index) -> Side:
    """The same under an index that equals its own: pandas sees that it is one, and looks at no name again."""
    wrong = one.wrong.set_axis(index)
    return Side(wrong if one.scores is one.wrong else one.scores, one.missing, wrong)


def _alike(one: Sheet, other: Sheet) -> bool:
    """Whether it is worth to compare value for value."""
    scores, others = one.items["score"].to_numpy(), other.items["score"].to_numpy()
    return len(scores) == len(others) and bool(np.isclose(np.nansum(scores), np.nansum(others)))


def fingerprint(sheet: Sheet) -> str:
    """The same for results whose values are the same, whatever order they are in."""
    kept = [
        name
        for name in ("item", "sample", "score", "answer", "latency_s", "tokens_in", "tokens_out", "text")
        if name in sheet.items
    ]
    rows = sheet.items[kept].astype(str).sort_values(kept)
    return hashlib.sha256(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes()).hexdigest()


def one_answer(sheet: Sheet) -> None:
    """Raise NotComparable where all answers of a result are one and the same."""
    answers = columns(sheet, "answer")
    if (
        answers is not None
        and len(answers) >= SAME_ANSWERS
        and answers.notna().all()
        and answers.astype(str).nunique() == 1
    ):
        raise NotComparable(
            f"all {len(answers):,} answers of the candidate are the same ({str(answers.iloc[0])[:40]!r})",
            "Look at the answers: the harness or the model is broken.",
        )


def _informative(before: Floats, after: Floats, chance: float | None, higher_is_better: bool) -> None:
    guess = (chance or 0.0) if higher_is_better else 1 - (1.0 if chance is None else chance)
    reached = [
        float((one.mean() - guess) / max(one.std(ddof=1) / np.sqrt(len(one)), 1e-12))
        if one.std() > 0
        else float(np.sign(one.mean() - guess)) * np.inf
        if one.mean() != guess
        else 0.0
        for one in (before, after)
    ]
    if max(reached) < INFORMATIVE:
        raise NotComparable(
            f"both scores are those of guessing ({before.mean():.3f} before, {after.mean():.3f} now, "
            f"{guess:.3f} by chance): the task says nothing",
            "Choose a task that the model can do.",
        )


def first_values(sheet: Sheet, column: str, items: pd.Index) -> NDArray[np.object_] | None:
    """A column's first value for each of the items, "" where it has none; None where the whole column is empty."""
    values = columns(sheet, column)
    if values is None:
        return None
    by_item = values.groupby(sheet.items["item"].astype(str)).first()
    found: NDArray[np.object_] = by_item.reindex(items).fillna("").astype(str).to_numpy(dtype=object)
    return found


def clusters_of(sheet: Sheet, items: pd.Index) -> tuple[NDArray[np.int64] | None, int]:
    """Number of each item's cluster, and how many items have none."""
    named = first_values(sheet, "cluster", items)
    if named is None:
        return None, 0
    codes = np.unique(named.astype(str), return_inverse=True)[1]
    return (codes, int((named == "").sum())) if len(np.unique(codes)) < len(items) else (None, 0)


def margin_reach(df: float, rows: int, share: float = 0.9) -> float:
    """Standard errors that a margin needs, so that all of `rows` unchanged rows pass with this chance."""
    return float(stats.t.ppf(0.95, df) + stats.t.ppf(share ** (1 / rows), df))
