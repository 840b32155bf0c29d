"""What the batches are made of: tokens per domain, padding, documents, and which token ids occur.

Metrics recorded:
    data/*     per step: tokens per domain, padding, rows, documents, and a fingerprint of the token ids
    tokens/*   per window of 200 steps: counts of every token id per domain; bytes, and bytes per script

B rows, S positions, D domains, V vocabulary size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collectors.batch import Batch
from collectors.fingerprint import batch_lanes
from collectors.signals.collector import Collector
from collectors.tally import HELD, Tally
from collectors.text import script_table, token_labels
from collectors.transfer import is_asynchronous
from trainvitals import fingerprint
from trainvitals.spelling import SCRIPTS


class DataCollector(Collector):
    """Sums over the batches of a step; with a longer cadence, over all steps since the last row."""

    name = "data"
    turn = 60

    def open(self) -> None:
        self.frame = self.tap.frame(
            "data", ["data/domain_tokens", "data/padding_tokens", "data/sequences", "data/documents",
                     fingerprint.FIELD],
            labels={"domain": self.tap.domain_labels, "lane": fingerprint.LANES})
        self.rewind()

    def rewind(self) -> None:
        self.sums = RowSums(len(self.tap.domain_names))

    def output(self, batch: Batch, output: Any) -> None:
        if not batch.training:
            return
        if batch.shape is None:
            self.tap.once("batch_unseen", "The model's inputs hold no token ids [batch, sequence]: tokens, domains and "
                          "padding are unknown.")
            return
        if batch.domain is not None and not batch.names:
            self.tap.once("domains_unknown", 'The batches carry a "domain", but tv.attach was given no domains: all '
                          "tokens count as unattributed.")
        if batch.domain is None and batch.names:
            self.tap.once("domains_unknown", 'tv.attach was given domains, but a batch carries no "domain": its tokens '
                          "count as unattributed. Put the domain of every row, or of every token, into the batch.")
        # Taken now: the loop may fill the same tensors with the next batch.
        batch.keep_domains()
        batch.keep_ids()
        batch.notes[self.name] = True

    def trained(self, batch: Batch) -> None:
        if self.name in batch.notes:
            self.sums.add(batch)

    def after_step(self, step: int) -> None:
        if self.due(step) and self.sums.sequences:
            self.emit(self.frame, step, {"data/sequences": self.sums.sequences}, _fields, self.sums.taken,
                      self.sums.cells.device)
            self.rewind()


class RowSums:
    """What batches add to a row; on the host it is worked out when the row is written, see `collectors.tally`."""

    def __init__(self, domains: int) -> None:
        self.cells = Tally(domains + 2)
        self.sequences = 0
        self._documents: int | Tensor | None = None
        self._lanes: Any = None
        self._waiting: list[Batch] = []
        self._held = 0

    def add(self, batch: Batch) -> None:
        """Count a batch of which domains and ids are kept."""
        assert batch.shape is not None and batch.device is not None
        positions = math.prod(batch.shape)
        self.cells.add(lambda: [(batch.cells, None)], positions, batch.device)
        self.sequences += batch.shape[0]
        self._waiting.append(batch)
        self._held += positions
        if self._held > HELD or is_asynchronous(batch.device):
            self._settle()

    def _settle(self) -> None:
        waiting, self._waiting, self._held = self._waiting, [], 0
        for batch in waiting:
            documents, lanes = batch.documents, batch_lanes(batch)
            self._documents = documents if self._documents is None else self._documents + documents
            self._lanes = lanes if self._lanes is None else self._lanes + lanes

    def taken(self) -> dict[str, Any]:
        """Counts by domain, documents and the lanes of the fingerprint."""
        self._settle()
        return {"cells": self.cells.counts, "data/documents": self._documents, fingerprint.FIELD: self._lanes}


def _fields(host: dict[str, Any]) -> dict[str, Any]:
    cells, lanes = host.pop("cells"), host[fingerprint.FIELD]
    return host | {"data/domain_tokens": cells[:-1], "data/padding_tokens": cells[-1],
                   fingerprint.FIELD: np.broadcast_to(np.remainder(lanes, fingerprint.LANE + 1.0), 2)}


class TokenCollector(Collector):
    """Counts of token ids over a window of steps."""

    name = "tokens"
    default_every = 200
    turn = 60

    def open(self) -> None:
        self.vocab_size = self.tap.card.vocab_size or 0
        tokenizer = self.tap.tokenizer
        if not self.vocab_size and tokenizer is not None:
            self.vocab_size = len(tokenizer) if hasattr(tokenizer, "__len__") else tokenizer.get_vocab_size()
        self.rewind()
        if not self.vocab_size:
            return
        self.scripts = None if tokenizer is None else script_table(tokenizer, self.vocab_size)
        fields = ["tokens/counts", "tokens/seen"]
        fields += [] if self.scripts is None else ["tokens/bytes", "tokens/script_bytes"]
        self.frame = self.tap.frame("tokens", fields, labels={
            "domain": self.tap.domain_labels, "token": token_labels(tokenizer, self.vocab_size), "script": SCRIPTS})

    def rewind(self) -> None:
        self.counts: Tally | None = None

    def output(self, batch: Batch, output: Any) -> None:
        if not batch.training or not self.vocab_size or batch.input_ids is None:
            return
        batch.keep_domains()
        batch.keep_ids()
        batch.notes[self.name] = True

    def trained(self, batch: Batch) -> None:
        ids = batch.input_ids
        if self.name not in batch.notes or ids is None:
            return
        if self.counts is None:
            self.counts = Tally((batch.domains + 2) * (self.vocab_size + 2))
        self.counts.add(lambda: [(self._cells(batch, ids), None)], ids.numel(), ids.device)

    def _cells(self, batch: Batch, ids: Tensor) -> Tensor:
        """The first and the last column take ids outside of the vocabulary, the last row padding."""
        columns = ids.reshape(-1).to(torch.int64).clamp(-1, self.vocab_size)
        return columns.add_(batch.cells, alpha=self.vocab_size + 2).add_(1)

    def after_step(self, step: int) -> None:
        if self.due(step):
            self._write(step)

    def finish(self) -> None:
        # A window that the run ended in is shorter, not less true.
        self._write(self.tap.step)

    def _write(self, step: int) -> None:
        tally, self.counts = self.counts, None
        if tally is not None:
            self.emit(self.frame, step, {}, self._fields, lambda: self._counts(tally), tally.device)

    def _counts(self, tally: Tally) -> dict[str, Tensor]:
        counts = tally.counts
        assert counts is not None
        return {"tokens/counts": counts.view(-1, self.vocab_size + 2)[:-1, 1:-1]}

    def _fields(self, host: dict[str, Any]) -> dict[str, Any]:
        counts = host["tokens/counts"]
        host["tokens/seen"] = counts.sum(axis=1)
        if self.scripts is not None:
            host["tokens/script_bytes"] = counts @ self.scripts
            host["tokens/bytes"] = host["tokens/script_bytes"].sum(axis=1)
        return host
