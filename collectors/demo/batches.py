"""Documents to batches: packed rows of one domain each, drawn by planned shares; a held-out part per domain.

Shapes: B = rows of a batch, T = context, N = rows of a domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from collectors.demo.corpus import Corpus
from trainvitals.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Batch = dict[str, Tensor]
HELD_OUT = 0.05
"""Share of each domain's documents that is never trained on."""
VALIDATION_ROWS = 8
"""Validation rows per domain; at 128 tokens each, an evaluation of five domains costs about one training step."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows of one domain."""

    ids_NT: np.ndarray
    positions_NT: np.ndarray
    """Restart at every document, so that attention does not reach across documents."""

    def __len__(self) -> int:
        return len(self.ids_NT)


def pack(documents: list[list[int]], end: int, context: int) -> Rows:
    """Lay documents end to end, each closed by the token `end`, and cut the stream into rows of `context` tokens.

    The tokens behind the last full row are dropped. A row that begins inside a document counts positions from 0.
    """
    lengths = np.array([len(document) + 1 for document in documents], dtype=np.int64)
    stream = np.fromiter((token for document in documents for token in (*document, end)), np.int64, lengths.sum())
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = len(stream) // context
    index_NT = np.arange(rows * context).reshape(rows, context)
    positions_NT = index_NT - np.maximum(begins[: rows * context].reshape(rows, context), index_NT[:, :1])
    return Rows(stream[: rows * context].reshape(rows, context), positions_NT)


def split_rows(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, context: int, seed: int
               ) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Training and validation rows per domain; every document lies on one side only.

    Raises:
        UsageError: a domain is too short for one row on both sides.
    """
    rng = np.random.default_rng(seed)
    train, held_out = {}, {}
    for domain, texts in corpus.documents.items():
        encoded = [item.ids for item in tokenizer.backend_tokenizer.encode_batch_fast(texts)]
        order = rng.permutation(len(encoded))
        # A document of several rows may hold out more than HELD_OUT: too little validation text says nothing.
        needed, kept = max(HELD_OUT * sum(map(len, encoded)), context), 0
        cut = 0
        while cut < len(order) and kept < needed:
            kept += len(encoded[order[cut]]) + 1
            cut += 1
        held_out[domain] = pack([encoded[i] for i in order[:cut]], tokenizer.eos_token_id, context)
        train[domain] = pack([encoded[i] for i in order[cut:]], tokenizer.eos_token_id, context)
        if not len(train[domain]):
            raise UsageError(f"Domain {domain!r} of {corpus.source} is too short: {sum(map(len, encoded)):,} tokens in "
                             f"{len(encoded)} documents. Give it more text (100 kB or more), or leave it out.")
    return train, held_out


class Mixture:
    """Draws training batches from the domains.

    `shares` starts as the plan and is what the draw really uses: each row's domain is drawn by it, then the domain's
    next row in a seeded order that is shuffled anew after every pass.
    """

    def __init__(self, rows: dict[str, Rows], shares: dict[str, float], batch_rows: int, seed: int) -> None:
        self.rows = list(rows.values())
        self.shares = np.array([shares[domain] for domain in rows])
        self.batch_rows = batch_rows
        self._rng = np.random.default_rng(seed)
        self._queues: list[list[int]] = [[] for _ in self.rows]

    def draw(self) -> Batch:
        """One batch: `input_ids`, `labels`, `position_ids` [B, T] and `domain` [B], int64."""
        domains = self._rng.choice(len(self.rows), size=self.batch_rows, p=self.shares)
        return as_batch([(self.rows[d], self._next(d), d) for d in domains])

    def _next(self, domain: int) -> int:
        queue = self._queues[domain]
        if not queue:
            queue += self._rng.permutation(len(self.rows[domain])).tolist()
        return queue.pop()


def as_batch(picks: list[tuple[Rows, int, int]]) -> Batch:
    """Stack picked rows, given as (rows, index, domain id)."""
    ids_BT = torch.from_numpy(np.stack([rows.ids_NT[i] for rows, i, _ in picks]))
    positions_BT = torch.from_numpy(np.stack([rows.positions_NT[i] for rows, i, _ in picks]))
    domain_B = torch.tensor([int(domain) for *_, domain in picks])
    return {"input_ids": ids_BT, "labels": ids_BT.clone(), "position_ids": positions_BT, "domain": domain_B}


def validation_batches(held_out: dict[str, Rows], batch_rows: int) -> list[Batch]:
    """`VALIDATION_ROWS` held-out rows of every domain, spread over its documents; the same at every evaluation."""
    picks = [(rows, int(i), d) for d, rows in enumerate(held_out.values())
             for i in np.unique(np.linspace(0, len(rows) - 1, VALIDATION_ROWS).astype(int))]
    return [as_batch(picks[i: i + batch_rows]) for i in range(0, len(picks), batch_rows)]
