"""Which kind of item went from right to wrong between two checkpoints: by task, by metadata, and by text.

    found = error_clusters(read_evals(run), "step-1000", "step-2000")
    found.clusters                 # those worth most first

Slices are made without a look at the answers; near-duplicates count once. A slice is a cluster where it holds more of
the lost items than chance puts there (hypergeometric, within each task), and more were lost in it than won (sign test),
both after Benjamini and Hochberg over all slices. Slices of items that flip often either way are no clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from checks.evals.items import NotComparable, align, first_values
from checks.evals.lift import benjamini_hochberg, lift, lift_p
from checks.evals.texts import alike, first_of_copies, opening
from trainvitals.evals import Evals

QUOTA, ALPHA = 0.01, 0.05
LEAST_SLICE, LEAST_LOST, LEAST_LIFT = 10, 10, 2.0
"""Right items that a slice must have had to be looked at; lost ones and lift that make it worth a name; conventions."""
MOST_SLICES, MOST_VALUES, SAME = 5_000, 500, 0.8
MOST_TEXT, MOST_ANSWER = 2_000, 200
PASS = 0.5
"""Score from which an item counts as right."""
FACETS = ("task", "group", "cluster", "tool", "length", "opening", "text")


@dataclass(frozen=True, slots=True)
class Lost:
    """An item that was right and is wrong."""

    task: str
    item: str
    text: str
    before: str
    after: str
    """Answers; "" where the harness did not keep them."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kind of item that was lost."""

    name: str
    facet: str
    """One of `FACETS`."""
    value: str
    tasks: tuple[str, ...]
    items: int
    """Of this kind, near-duplicates merged."""
    right: int
    """Of these, right before."""
    lost: int
    won: int
    lift: float
    """Share of right items that were lost, over that of the rest."""
    p: float
    q: float
    """After Benjamini and Hochberg."""
    gain: float
    """What the mean over all tasks would gain, were the net loss mended: a share."""
    task_gain: dict[str, float]
    look_at: str
    lost_items: tuple[Lost, ...]
    """All that were lost."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and what it rests on."""

    before: str
    after: str
    clusters: tuple[Cluster, ...]
    items: int
    copies: int
    """Near-duplicates that were merged."""
    lost: int
    won: int
    slices: int
    """Slices that were looked at."""
    notes: tuple[str, ...]
    """Tasks that were left out, and why; what was not looked at."""

    def to_json(self) -> dict[str, Any]:
        """As `trainvitals evals clusters --json` prints it."""
        return asdict(self)


def error_clusters(evals: Evals, before: str, after: str) -> Found:
    """The clusters between two checkpoints, those that cost most first."""
    tables, notes = [], []
    for task in evals.tasks:
        one, other = evals.sheet(task, before), evals.sheet(task, after)
        if one is None or other is None:
            lacks = [evals.lacking(task, c) for c, sheet in ((before, one), (after, other)) if sheet is None]
            notes.append(f"{task}: {'; '.join(lacks)}")
            continue
        if not len(one.items) or not len(other.items):
            notes.append(f"{task}: there are no items of both checkpoints")
            continue
        try:
            a = align(one, other, QUOTA, None, None)
        except NotComparable as problem:
            notes.append(f"{task}: {problem}")
            continue
        facets = {name: values for name in ("group", "cluster", "tool", "text")
                  if (values := first_values(other, name, a.items)) is not None}  # fmt: skip
        answers = [first_values(sheet, "answer", a.items) for sheet in (one, other)]
        blank = np.full(len(a.items), "", object)
        tables.append(pd.DataFrame({
            "task": task, "item": a.items.astype(str), "right": a.before >= PASS, "now": a.after >= PASS,
            **{name: facets.get(name, blank) for name in ("group", "cluster", "tool", "text")},
            "before": blank if answers[0] is None else answers[0], "after": blank if answers[1] is None else answers[1],
        }))  # fmt: skip
    if not tables:
        return Found(before, after, (), 0, 0, 0, 0, 0, tuple(notes))
    whole = pd.concat(tables, ignore_index=True)
    sizes = whole.groupby("task").size().to_dict()
    rows = _without_copies(whole)
    found, looked, more = clusters_of_rows(rows, sizes)
    lost, won = int((rows["right"] & ~rows["now"]).sum()), int((~rows["right"] & rows["now"]).sum())
    return Found(before, after, tuple(found), len(rows), len(whole) - len(rows), lost, won, looked, (*notes, *more))


def _without_copies(rows: pd.DataFrame) -> pd.DataFrame:
    kept = []
    for _, part in rows.groupby("task", sort=False):
        first = first_of_copies(part["text"].tolist())
        kept.append(part[first == np.arange(len(part))])
    return pd.concat(kept, ignore_index=True)


def clusters_of_rows(rows: pd.DataFrame, sizes: dict[str, int]) -> tuple[list[Cluster], int, list[str]]:
    """Clusters, number of slices looked at, and notes.

    Args:
        rows: an item each: task, item, right, now, group, cluster, tool, text, before, after.
        sizes: items of each task, near-duplicates with them.
    """
    right, now = rows["right"].to_numpy(bool), rows["now"].to_numpy(bool)
    lost, won = right & ~now, ~right & now
    tasks = rows["task"].to_numpy(object)
    looked: list[tuple[str, str, NDArray[np.bool_], float, float]] = []
    slices, notes = _slices(rows)
    for facet, value, inside in slices:
        if (inside & right).sum() < LEAST_SLICE or inside.all():
            continue
        strata = _strata(inside, right, lost, None if facet == "task" else tasks)
        if not strata:
            continue
        net = int((inside & lost).sum()), int((inside & won).sum())
        p_net = float(stats.binom.sf(net[0] - 1, sum(net), 0.5)) if sum(net) else 1.0
        looked.append((facet, value, inside, max(lift_p(strata), p_net), lift(strata)))
    q = benjamini_hochberg([p for *_, p, _ in looked])
    cards = [_cluster(rows, facet, value, inside, lost, won, size, p, float(adjusted), sizes)
             for (facet, value, inside, p, size), adjusted in zip(looked, q, strict=True)
             if adjusted <= ALPHA and size >= LEAST_LIFT and (inside & lost).sum() >= LEAST_LOST]  # fmt: skip
    return sorted(_distinct(cards), key=lambda c: (-c.gain, c.name)), len(looked), notes


def _strata(inside: NDArray[np.bool_], right: NDArray[np.bool_], lost: NDArray[np.bool_],
            tasks: NDArray[np.object_] | None) -> list[tuple[int, int, int, int]]:
    """Of each task that the slice has a part of: lost and right in the slice, lost and right in the task."""
    found = []
    for task in [None] if tasks is None else dict.fromkeys(tasks[inside]):
        of = np.ones(len(inside), bool) if task is None or tasks is None else tasks == task
        here = inside & of & right
        # A slice that is a whole task says nothing within it.
        if 0 < here.sum() < (of & right).sum():
            found.append((int((here & lost).sum()), int(here.sum()), int((of & lost).sum()), int((of & right).sum())))
    return found


def _slices(rows: pd.DataFrame) -> tuple[list[tuple[str, str, NDArray[np.bool_]]], list[str]]:
    """Facet, value and members of every slice, made without the answers."""
    found: list[tuple[str, str, NDArray[np.bool_]]] = []
    texts = rows["text"].tolist()
    columns: dict[str, pd.Series] = {"task": rows["task"]}
    columns |= {name: rows[name] for name in ("group", "cluster", "tool")}
    columns["length"] = _lengths(rows)
    columns["opening"] = rows["text"].map(opening)
    notes = []
    for facet, values in columns.items():
        counts = values[values != ""].value_counts()
        usable = counts[counts >= LEAST_SLICE].index[:MOST_VALUES]
        if len(counts) < 2:
            continue
        found += [(facet, str(value), (values == value).to_numpy(bool)) for value in usable]
    groups = alike(texts)
    if groups is None:
        notes.append("texts were not grouped: fewer than 40 items have one, or scikit-learn is not installed")
    else:
        found += [("text", name, groups.labels == at) for at, name in enumerate(groups.names)]
    return found[:MOST_SLICES], notes


def _lengths(rows: pd.DataFrame) -> pd.Series:
    """Quarter of each text's length within its task."""
    names = ["shortest quarter", "second quarter", "third quarter", "longest quarter"]
    length = rows["text"].str.len()
    place = length.groupby(rows["task"]).rank(pct=True, method="average")
    quarter = np.clip(np.ceil(place.to_numpy(float) * 4).astype(int) - 1, 0, 3)
    told = pd.Series(np.array(names, object)[quarter], rows.index)
    varied = length.groupby(rows["task"]).transform("nunique") >= 4
    return told.where(varied & (length > 0), "")


def _cluster(rows: pd.DataFrame, facet: str, value: str, inside: NDArray[np.bool_], lost: NDArray[np.bool_],
             won: NDArray[np.bool_], size: float, p: float, q: float, sizes: dict[str, int]) -> Cluster:
    gone = rows[inside & lost]
    tasks = tuple(sorted(gone["task"].unique()))
    back = rows[inside & won].groupby("task").size().reindex(tasks, fill_value=0)
    net = gone.groupby("task").size().reindex(tasks) - back
    gains = {task: max(0.0, float(net[task])) / sizes[task] for task in tasks}
    name = f"{facet}: {value}"
    right = int((inside & rows["right"].to_numpy(bool)).sum())
    k = int((inside & lost).sum())
    gain = sum(gains.values()) / len(sizes)
    rest = "" if facet == "task" else f" of {', '.join(tasks[:3])}"
    look = (f"{k} of {right} items that were right are wrong now, {size:.2g} times the share of the rest{rest}. Read "
            f"them, and what the training data has of this kind; mended, the mean over {len(sizes)} "
            f"task{'s' * (len(sizes) > 1)} gains {100 * gain:.2g} points.")  # fmt: skip
    items = tuple(Lost(r.task, r.item, r.text[:MOST_TEXT], str(r.before)[:MOST_ANSWER], str(r.after)[:MOST_ANSWER])
                  for r in gone.itertuples())  # fmt: skip
    return Cluster(name, facet, value, tasks, int(inside.sum()), right, k, int((inside & won).sum()), size, p, q, gain,
                   gains, look, items)  # fmt: skip


def _distinct(cards: Sequence[Cluster]) -> Iterator[Cluster]:
    """Of clusters that lost the same items, the narrowest; of those as narrow, the one that is easiest to read."""
    kept: list[set[tuple[str, str]]] = []
    for one in sorted(cards, key=lambda c: (c.right, FACETS.index(c.facet), c.name)):
        lost = {(item.task, item.item) for item in one.lost_items}
        if all(len(lost & other) < SAME * len(lost | other) for other in kept):
            kept.append(lost)
            yield one
