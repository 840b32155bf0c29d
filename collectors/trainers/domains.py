"""A data set's column "domain", brought past a trainer's collator to the tap.

Collators drop strings, fail on them, or put several rows into one. So the column is taken out before the collator sees
it and put back, as ids, into the batch that it made: per row, or per token where rows were laid one behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from collectors.batch import IGNORED, domain_tensor

COLUMN = "domain"
LIBRARIES = ("transformers.", "trl.")
"""Their collators know nothing of the column; one of the user's own may."""
PREFERENCE = "DataCollatorForPreference"
"""TRL's collator of pairs: the rows of all chosen completions, then those of all rejected ones."""
HOST = torch.device("cpu")


class DomainCollator:
    """A collator around another one, for data loaders; pickles with it."""

    def __init__(self, collate: Any, names: Sequence[str]) -> None:
        """`names` are the planned domains in the order of their ids."""
        self.collate, self.names = collate, list(names)

    def __call__(self, features: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """The batch of these rows. Rows without the column are collated as they are."""
        if not all(isinstance(row, Mapping) and COLUMN in row for row in features):
            return self.collate(features, *args, **kwargs)
        bare = [{name: value for name, value in row.items() if name != COLUMN} for row in features]
        batch = self._collated(features, bare, args, kwargs)
        if isinstance(batch, MutableMapping) and not isinstance(batch.get(COLUMN), Tensor):
            batch.pop(COLUMN, None)
            try:
                placed = self._placed(features, batch)
            except Exception:  # do no harm: a column of whatever kind must not stop the training
                placed = None
            if placed is not None:
                batch[COLUMN] = placed
        return batch

    def _collated(self, features: Sequence[Any], bare: Sequence[Any], args: Any, kwargs: Any) -> Any:
        kind = self.collate if hasattr(self.collate, "__qualname__") else type(self.collate)
        if str(getattr(kind, "__module__", "")).startswith(LIBRARIES):
            return self.collate(bare, *args, **kwargs)
        try:
            return self.collate(features, *args, **kwargs)
        except Exception:  # it does not know the column, which the Trainer would have dropped
            return self.collate(bare, *args, **kwargs)

    def _placed(self, features: Sequence[Any], batch: Mapping[str, Any]) -> Tensor | None:
        """Domain ids for the rows [B] or positions [B, S] of the batch; None where these cannot be told."""
        given = [row[COLUMN] for row in features]
        like = next((batch[n] for n in ("input_ids", "labels") if isinstance(batch.get(n), Tensor)), None)
        if like is None or like.dim() != 2:
            return None
        rows, positions = like.shape
        if type(self.collate).__name__ == PREFERENCE and rows == 2 * len(given):
            given = given + given
        ids = [self._ids(one) for one in given]
        lengths = [len(row["input_ids"]) if "input_ids" in row else -1 for row in features]
        whole = all(one is None or isinstance(one, str | int) or getattr(one, "ndim", 1) == 0 for one in given)
        if rows == len(given) and whole:
            return torch.cat(ids)
        if len(given) != len(features) or not (whole or [len(one) for one in ids] == lengths):
            return None
        if rows == 1 and min(lengths) >= 0 and sum(lengths) <= positions:
            tokens = [one.expand(n) if whole else one for one, n in zip(ids, lengths, strict=True)]
            return self._padded(torch.cat(tokens), positions)[None]
        if rows == len(given) and max(lengths) <= positions:
            left = _padded_on_the_left(batch, like)
            return torch.stack([self._padded(one, positions, left) for one in ids])
        return None

    def _ids(self, given: Any) -> Tensor:
        """The ids in one row's column, int64 [n]."""
        one = len(self.names) if given is None else given
        return domain_tensor([one] if isinstance(one, str | int) else one, self.names, HOST).reshape(-1)

    def _padded(self, ids: Tensor, positions: int, left: bool = False) -> Tensor:
        space = positions - len(ids)
        return torch.nn.functional.pad(ids, (space, 0) if left else (0, space), value=len(self.names))


def _padded_on_the_left(batch: Mapping[str, Any], like: Tensor) -> bool:
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.shape != like.shape:
        labels = batch.get("labels")
        return isinstance(labels, Tensor) and bool((labels[:, 0] == IGNORED).any() and (labels[:, -1] != IGNORED).all())
    return bool((mask[:, 0] == 0).any())


def lost(trainer: Any, dataset: Any) -> str | None:
    """Why the training set of a transformers Trainer carries no domains; None where it does, or where that is open."""
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or COLUMN in columns:
        return None
    what = f'{type(trainer).__name__} trains on a data set without a column "{COLUMN}" (it has {", ".join(columns)})'
    why = ""
    if getattr(trainer.args, "packing", False):
        why = (": its packing keeps tokens and labels alone. Pack before, with trl.pack_dataset over input_ids and a "
               f'"{COLUMN}" per token, and train with padding_free=True and packing=False')
    return f"{what}{why}. All tokens count as unattributed."
