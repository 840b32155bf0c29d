"""Measure the audit on the user's own text: plant known items in a sample of it, scan, and count what is found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from checks.contamination.recall.rewrites import EDITS
from checks.contamination.records import DETECTORS, Item
from trainvitals.errors import UsageError

PER_EDIT = 50
"""Items per edit: a recall of 1.0 then has a Wilson interval of .93 to 1.0."""
AROUND = (20, 60)
"""Words of the user's text before a planted item and as many behind it."""
PADDING = (100, 200)
"""The same for the padded: 200 to 400 words in all."""
PARAPHRASE = "paraphrase column"
"""Planted where the benchmark brings paraphrases of its own."""
ANY = "any"
"""All detectors together."""


@dataclass(frozen=True, slots=True)
class Planted:
    """Documents to scan and what is in them."""

    documents: Sequence[str]
    """Documents with one planted item each, then as many of the sample as they stand."""
    truth: pd.DataFrame
    """record (position in `documents`), item (position in the items), item_id, benchmark, edit: one row per plant."""
    controls: Sequence[int]
    """Items that were planted nowhere: any of these that is found is a false alarm."""


def plant(
    items: Sequence[Item],
    sample: Sequence[str],
    *,
    seed: int = 0,
    per_edit: int = PER_EDIT,
    eligible: Collection[int] | None = None,
    paraphrases: Mapping[int, str] | None = None,
) -> Planted:
    """Plant items in text of the user's own.

    Every item is planted once at most, and a third of them nowhere.

    Args:
        items: All items of the audit.
        sample: Documents of the user's corpus.
        seed: Of the choice of items, edits and places.
        per_edit: Items per edit, where there are enough.
        eligible: Positions of items that may be used: those that the audit itself called clean. All, if not given.
        paraphrases: Of items, by position, where the benchmark has them.

    Raises:
        UsageError: no text to plant in, or fewer than three items.
    """
    rng = np.random.default_rng(seed)
    texts = [text for text in sample if text.strip()]
    if not texts:
        raise UsageError("The corpus sample has no text to plant items in. Name a corpus with at least one document.")
    pool = rng.permutation(sorted(range(len(items)) if eligible is None else eligible)).tolist()
    if len(pool) < 3:
        raise UsageError(f"{len(pool)} clean items are too few to measure recall. It takes 3 at least.")
    edits = [*EDITS, *([PARAPHRASE] if paraphrases else [])]
    use = min(per_edit * len(edits), 2 * len(pool) // 3)
    documents: list[str] = []
    truth: list[dict[str, Any]] = []
    for k, position in enumerate(pool[:use]):
        edit = edits[k % len(edits)]
        text = planted_text(items[position])
        if edit == PARAPHRASE:
            if paraphrases is None or position not in paraphrases:
                continue
            changed = paraphrases[position]
        else:
            changed = EDITS[edit](text, rng)
        if edit not in ("verbatim", "padded") and changed == text:
            continue  # nothing to edit in this one: no number, one clause
        truth.append({"record": len(documents), "item": position, "item_id": items[position].item_id,
                      "benchmark": items[position].benchmark, "edit": edit})
        documents.append(_within(changed, texts, PADDING if edit == "padded" else AROUND, rng))
    clean = [texts[int(k)] for k in rng.permutation(len(texts))[: len(documents)]]
    columns = ["record", "item", "item_id", "benchmark", "edit"]
    return Planted([*documents, *clean], pd.DataFrame(truth, columns=columns), sorted(pool[use:]))


def planted_text(item: Item) -> str:
    """What of an item is planted: all but the answer, as a page would print it."""
    shown = [item.fields[role] for role in ("passage", "question", "choices", "code") if item.fields.get(role)]
    return "\n".join(shown or item.fields.values())


def _within(text: str, texts: Sequence[str], around: tuple[int, int], rng: np.random.Generator) -> str:
    before, behind = (_some(texts, int(rng.integers(*around, endpoint=True)), rng) for _ in range(2))
    return f"{before}\n\n{text}\n\n{behind}"


def _some(texts: Sequence[str], count: int, rng: np.random.Generator) -> str:
    """That many words of the texts, in a row as far as one text reaches."""
    words: list[str] = []
    for _ in range(count):
        if len(words) >= count:
            break
        found = texts[int(rng.integers(len(texts)))].split()
        start = int(rng.integers(max(len(found) - count, 0) + 1))
        words += found[start : start + count - len(words)]
    return " ".join(words)


def recall_table(planted: Planted, matches: pd.DataFrame) -> list[dict[str, Any]]:
    """How many planted items each detector found, per edit.

    Args:
        planted: What was planted.
        matches: MATCHES of the audit of `planted.documents`, one shard, in order.

    Returns:
        One row per edit and detector (and `any`): edit, detector, planted, found (contaminated or suspect, by a match
        in the very document), contaminated, recall (found / planted) with its 95 % Wilson interval low, high
        (https://doi.org/10.1080/01621459.1927.10502953).
    """
    told = matches[matches["level"] != "below"]
    keys = ["benchmark", "item_id", "record"]
    joined = planted.truth.merge(told[[*keys, "detector", "level"]], on=keys, how="left")
    rows = []
    for edit, truth in planted.truth.groupby("edit", sort=False):
        mine = joined[joined["edit"] == edit]
        for detector in (*DETECTORS, ANY):
            seen = mine if detector == ANY else mine[mine["detector"] == detector]
            found = seen[seen["level"].notna()]["item"].nunique()
            rows.append({"edit": str(edit), "detector": detector, "planted": len(truth), "found": found,
                         "contaminated": seen[seen["level"] == "contaminated"]["item"].nunique(),
                         **_share("recall", found, len(truth))})
    return rows


def false_alarms(planted: Planted, found: pd.DataFrame) -> dict[str, Any]:
    """How many items that were planted nowhere were found all the same.

    Args:
        planted: What was planted.
        found: ITEMS of the audit of `planted.documents`, in the order of the items.

    Returns:
        items, contaminated, suspect, and the share of both together with its 95 % Wilson interval: value, low, high.
        In a corpus that does hold an item, outside the sample that the audit saw, the alarm is true.
    """
    verdicts = found["verdict"].iloc[list(planted.controls)]
    counts = {level: int((verdicts == level).sum()) for level in ("contaminated", "suspect")}
    return {"items": len(verdicts), **counts, **_share("value", sum(counts.values()), len(verdicts))}


def _share(name: str, found: int, of: int) -> dict[str, float]:
    if not of:
        return {name: float("nan"), "low": 0.0, "high": 1.0}
    interval = binomtest(found, of).proportion_ci(method="wilson")
    return {name: found / of, "low": float(interval.low), "high": float(interval.high)}
