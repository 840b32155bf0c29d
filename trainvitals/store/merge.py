"""What attempts hold of the fields of a signal, one behind the other, and where that is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainvitals.catalogue import Field

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Merged:
    """One value per step of a field; where a row that belongs to it is damaged or missing, that is said."""

    values: Array
    """[n, *axes]"""
    damaged: Mask | None = None
    """Steps of which a stored value cannot be read [n]; None: none. The value is NaN there."""
    missing: Mask | None = None
    """Steps at which a rank that should be in the value has no row [n]; None: none. The value is over the others."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one attempt holds of the fields that a signal reads."""

    steps: NDArray[np.int64]
    """[n]"""
    columns: list[Array]
    """One per field [n, *axes]."""
    unknown: Mask | None = None
    """Where what is stored does not make up the value: damaged, or a sum without one of its ranks.
    [n], or [n, ranks] by rank; None: nowhere."""
    partial: Mask | None = None
    """Steps whose value is over some of the ranks [n]; None: none."""

    @classmethod
    def of(cls, steps: NDArray[np.int64], merged: Sequence[Merged], keep: slice, fields: Sequence[Field], mean: bool,
           alone: bool) -> Piece:
        """The kept part of merged fields. `mean`: without some ranks it stands for the others. `alone`: ranks that
        belong to the attempt have written nothing at all.
        """
        missing = _either([m.missing for m in merged], keep)
        unknown = _either([m.damaged for m in merged], keep)
        partial = missing if mean else None
        if not mean:
            unknown = _either([unknown, missing], slice(None))
        if alone and any(field.merge != "same" for field in fields):
            partial = np.ones(len(steps), bool)
        return cls(steps, [m.values[keep] for m in merged], unknown, partial)

    @classmethod
    def by_rank(cls, steps: NDArray[np.int64], tables: Sequence[tuple[Array, Mask]], keep: slice) -> Piece:
        """The kept part of fields by rank; a rank without a row has no value."""
        unknown = _either([~known for _, known in tables], keep)
        return cls(steps, [values[keep] for values, _ in tables], unknown)

    @classmethod
    def join(cls, pieces: Sequence[Piece]) -> Piece:
        """Pieces one behind the other."""
        columns = [np.concatenate(column) for column in zip(*(piece.columns for piece in pieces), strict=True)]
        return cls(np.concatenate([piece.steps for piece in pieces]), columns,
                   _joined([piece.unknown for piece in pieces], pieces),
                   _joined([piece.partial for piece in pieces], pieces))


def _either(masks: Sequence[Mask | None], keep: slice) -> Mask | None:
    found = [mask[keep] for mask in masks if mask is not None]
    either = np.logical_or.reduce(found) if found else None
    return either if either is not None and either.any() else None


def _joined(masks: Sequence[Mask | None], pieces: Sequence[Piece]) -> Mask | None:
    shapes = {mask.shape[1:] for mask in masks if mask is not None}
    if not shapes:
        return None
    shape = shapes.pop()
    return np.concatenate([np.zeros((len(piece.steps), *shape), bool) if mask is None else mask
                           for mask, piece in zip(masks, pieces, strict=True)])
