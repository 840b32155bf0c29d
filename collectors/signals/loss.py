"""Loss per data domain, without computing the cross-entropy a second time.

Metrics recorded:
    loss/*     per step: cross-entropy and target tokens, in all and per domain; what the model returned
    eval/*     at the step of the evaluation: the same for its forwards; eval_sets/* where there are several sets
    unused/*   where forwards became part of no step: how many, their target tokens, those without a finite loss

N targets, C classes, D domains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collectors.batch import Batch, domain_tensor
from collectors.signals.collector import Collector
from collectors.signals.cross_entropy import CrossEntropyWatch, Piece
from collectors.signals.evaluations import MOST_PASSES, MOST_SETS, Passes, PassWatch
from collectors.tally import Cells, Tally, count, zeros
from collectors.transfer import is_asynchronous
from trainvitals.store import FrameWriter

FROM_THE_LOOP = "losses from the loop"
"""Where a batch keeps cross-entropies that the loop computed from what the forward returned."""


class LossCollector(Collector):
    """Sums of per-token losses and counts of target tokens, per domain."""

    name = "loss"
    turn = 10

    def open(self) -> None:
        tap = self.tap
        self.labels = {"domain": tap.domain_labels}
        self.train_frame: FrameWriter | None = None
        self.set_frame: FrameWriter | None = None
        self.eval_frame = tap.frame("eval", [
            "loss/val_sum", "loss/val_tokens", "loss/val_domain_sum", "loss/val_domain_tokens"], labels=self.labels)
        self.unused_frame = tap.frame("unused", ["unused/forwards", "unused/tokens", "unused/nonfinite_tokens"])
        self.rewind()
        # Outermost first: adapters (PEFT) wrap the transformers model that computes the loss.
        self.model = next((m for m in tap.core.modules() if hasattr(type(m), "loss_function")), None)
        self.sets: list[str] = []
        """Evaluation sets seen so far."""
        self.handles += [CrossEntropyWatch(self),
                         PassWatch(tap.core, lambda: tap.guard(self, self.evaluation_ends))]

    def rewind(self) -> None:
        self.train = DomainSums(len(self.tap.domain_names))
        self.passes = Passes()
        self.spare = DomainSums(len(self.tap.domain_names))
        self.spare_forwards = 0
        self.evaluation: Batch | None = None
        """The last forward of an evaluation."""
        self.returned: dict[str, Tensor | float] = {}
        self.forwards = 0
        self.shares_of_one = False
        """Whether what the forwards of the step return adds up to its loss, in place of each being a mean."""
        self.pieces: list[Piece] = []
        """Cross-entropies of the forward that runs."""

    # ---- what the forward shows -------------------------------------------------------------------------------

    def wanted(self) -> Batch | None:
        """The forward that a cross-entropy computed now belongs to, if its loss will be written.

        That is the forward that runs, or the last one while it has shown no loss: then the loop computes it.
        """
        batch = self.tap.batch
        if batch is None or batch.settled or (
                not batch.open and batch.loss_seen and FROM_THE_LOOP not in batch.notes):
            return None
        return batch if not batch.training or self.due(self.tap.step + 1) else None

    def keep(self, batch: Batch, piece: Piece) -> None:
        """Take the per-token losses of one cross-entropy."""
        batch.loss_seen = True
        if batch.open:
            self.pieces.append(piece)
        else:
            batch.notes.setdefault(FROM_THE_LOOP, []).append(piece)

    def forward(self, batch: Batch) -> None:
        self.pieces = []
        CrossEntropyWatch.latest = self
        self._count_evaluation()
        if batch.training:
            self._write_validation()

    def output(self, batch: Batch, output: Any) -> None:
        self._sum(batch, self.pieces)
        found = None if batch.loss_seen else returned_log_probs(output)
        if found is not None and self.wanted() is batch:
            self.add_tokens(-found[0], None, found[1])
            self.tap.once("loss_from_log_probs", "The loss per token is taken from the log-probabilities that the "
                          "model returned; an objective made of them, as a preference loss, is the loop's own number.",
                          unknown=False)
        if batch.training:
            # Taken now: the loop may divide what the model returned in place.
            batch.notes["returned"] = {name: _number(value) for name, value in returned_losses(output)}

    def _sum(self, batch: Batch, pieces: list[Piece]) -> None:
        """Sum what the forward's cross-entropies hold, per domain."""
        if not pieces:
            return
        batch.keep_domains()

        def cells() -> Iterator[tuple[Tensor, Tensor]]:
            for piece, ids in self._aligned(batch, pieces):
                ids = ids.to(piece.target.device)
                yield ids.masked_fill(piece.target == piece.ignore_index, batch.domains + 1), piece.per_token

        self._add(batch, cells, sum(piece.target.numel() for piece in pieces), pieces[0].per_token.device)

    def _aligned(self, batch: Batch, pieces: list[Piece]) -> Iterator[tuple[Piece, Tensor]]:
        """Each piece with the domain of every target, int64 [N]; D where that cannot be told."""
        sizes = [piece.target.numel() for piece in pieces]
        if len(pieces) > 1 and batch.target_ids(sizes[0], self.shifted) is not None and sizes[0] == max(sizes):
            self.tap.once("loss_several", f"A forward computed {len(pieces)} cross-entropies over the whole batch: the "
                          "first is recorded as its loss, the others are not.")
            pieces, sizes = pieces[:1], sizes[:1]
        whole = batch.target_ids(sum(sizes), self.shifted, one_piece=len(pieces) == 1)
        # Pieces along the sequence hold some positions of every row: only where one domain holds all is that no matter.
        if whole is None or (len(pieces) > 1 and batch.domain is not None and batch.shape is not None
                             and batch.shape[0] > 1 and all(size % batch.shape[0] == 0 for size in sizes)):
            if batch.names:
                self.tap.once("loss_unaligned", f"Losses over {' + '.join(map(str, sizes[:4]))} targets do not line up "
                              f"with a batch of shape {batch.shape}: their tokens count as unattributed.")
            whole = torch.full((sum(sizes),), batch.domains, dtype=torch.int64, device=pieces[0].target.device)
        yield from zip(pieces, torch.split(whole, sizes), strict=True)

    @property
    def shifted(self) -> bool:
        """Whether the model's loss at a position is that of the next token."""
        return "MaskedLM" not in str(getattr(self.model, "loss_type", ""))

    def _sums(self, batch: Batch) -> DomainSums | None:
        """All that was seen of the forward's loss."""
        self._sum(batch, batch.notes.pop(FROM_THE_LOOP, []))
        found: DomainSums | None = batch.notes.get(self.name)
        return found

    def _add(self, batch: Batch, cells: Cells, n: int, device: torch.device) -> None:
        if self.name not in batch.notes:
            batch.notes[self.name] = DomainSums(len(self.tap.domain_names))
        batch.notes[self.name].add(cells, n, device)

    def add_tokens(self, per_token: Tensor, domain: Any, mask: Tensor | None) -> None:
        """What `tap.loss` takes: losses of any shape, domains and mask that broadcast to it from the left."""
        batch = self.tap.batch
        if per_token.dim() == 0:
            self.tap.once("loss_scalar", "tap.loss was given one number, and of how many tokens it is the mean is "
                          "unknown: it is not recorded. Pass the loss of every token (reduction='none').")
            return
        # The loop knows more of its losses than their values: what it hands over replaces what was seen of them.
        replaced = batch is not None and bool(batch.notes.pop(FROM_THE_LOOP, None))
        if batch is not None and batch.loss_seen and not replaced:
            self.tap.once("loss_ignored", "tap.loss was called for a batch whose cross-entropy had been seen already: "
                          "it is counted once, as it was computed.")
            return
        if batch is not None and batch.settled:
            self.tap.once("loss_late", "tap.loss was called after the step of its batch: it is not recorded. Call it "
                          "between the forward and optimizer.step().")
            return
        training = batch.training if batch is not None else torch.is_grad_enabled()
        if training and not self.due(self.tap.step + 1):
            return
        per_token, names = per_token.detach(), self.tap.domain_names
        if domain is not None:
            ids = domain_tensor(domain, names, per_token.device)
        else:
            aligned = batch.target_ids(per_token.numel(), shifted=True) if batch is not None else None
            ids = aligned.reshape(per_token.shape) if aligned is not None else torch.full(
                per_token.shape, len(names), dtype=torch.int64, device=per_token.device)
        ids = _spread(ids, per_token)
        if mask is None and batch is not None:
            mask = batch.counted_targets(tuple(per_token.shape))
        if mask is not None:
            ids = torch.where(_spread(mask, per_token).to(torch.bool), ids, len(names) + 1)
        # A copy: the loop may go on to use its own.
        rows, losses = ids.reshape(-1), per_token.reshape(-1).clone()
        if batch is not None:
            batch.loss_seen = True
            self._add(batch, lambda: [(rows, losses)], losses.numel(), losses.device)
        elif training:
            self.train.add(lambda: [(rows, losses)], losses.numel(), losses.device)
            self.forwards += 1

    # ---- what the forward was for -----------------------------------------------------------------------------

    def evaluated(self, batch: Batch) -> None:
        # Its loss may still come, from the loop.
        self._count_evaluation()
        self.evaluation = batch
        self.validation_step = self.tap.step

    def _count_evaluation(self) -> None:
        batch, self.evaluation = self.evaluation, None
        sums = None if batch is None else self._sums(batch)
        if sums is not None and sums.device is not None:
            self.passes.add(sums)

    def evaluation_begins(self, name: str) -> None:
        """Forwards in evaluation mode from here on are of this set."""
        self.evaluation_ends()
        self.passes.name = name

    def evaluation_ends(self, name: str | None = None) -> None:
        """Those from here on are of another pass. `name` is that of the pass before, "" where it is the only set."""
        self._count_evaluation()
        self.passes.end(name)
        if name is not None:
            self.passes.name = None

    def trained(self, batch: Batch) -> None:
        if not self.due(self.tap.step + 1):
            return
        self.forwards += 1
        self.shares_of_one |= batch.share_of_one
        self.train.merge(self._sums(batch))
        for name, value in batch.notes.get("returned", {}).items():
            self.returned[name] = self.returned[name] + value if name in self.returned else value

    def unused(self, batch: Batch) -> None:
        self.spare_forwards += 1
        self.spare.merge(self._sums(batch))
        self.tap.once("forward_unused", "A forward in training mode became part of no step (a skipped batch, a pass of "
                      "a reference or a probe): such forwards are counted under unused/*, not in the loss.",
                      unknown=False)

    def after_step(self, step: int) -> None:
        if self.due(step) and (self.forwards or self.train.device is not None):
            self._write(step)
        self.returned, self.forwards, self.shares_of_one = {}, 0, False
        self._write_unused(step)

    def _write(self, step: int) -> None:
        sums, self.train = self.train, DomainSums(len(self.tap.domain_names))
        seen = sums.device is not None
        if not seen:
            self._say_unseen()
        returned = self.returned
        if self.shares_of_one:
            returned = {name: value * self.forwards for name, value in returned.items()}
        if self.train_frame is None:
            # Only what this model computes: a loss that it does not have is not a loss of NaN.
            computed = list(DomainSums.FIELDS) if seen else []
            self.train_frame = self.tap.frame("loss", [*computed, *returned, "loss/forwards"], labels=self.labels)
        self.emit(self.train_frame, step, returned | {"loss/forwards": self.forwards}, DomainSums.fields, sums.taken,
                  sums.device)

    def _say_unseen(self) -> None:
        known = "Only the loss that the model returned is recorded" if self.returned else "No loss is recorded"
        self.tap.once("loss_unseen", f"{known}: torch's cross_entropy did not run for the batch (another loss, a fused "
                      "or compiled one, or one that was imported by name before attach), so the loss per token and "
                      "domain is unknown. Pass per-token losses to tap.loss(...).")

    def finish(self) -> None:
        self._write_validation()
        self._write_unused(self.tap.step + 1)

    def _write_unused(self, step: int) -> None:
        if self.spare_forwards:
            self.emit(self.unused_frame, step, {"unused/forwards": self.spare_forwards}, _unused_fields,
                      self.spare.taken, self.spare.device)
            self.spare, self.spare_forwards = DomainSums(len(self.tap.domain_names)), 0

    def _write_validation(self) -> None:
        self._count_evaluation()
        whole, named, unnamed = self.passes.take()
        if unnamed > 1:
            apart = unnamed <= MOST_PASSES
            self.tap.once("evaluations_unnamed", f"Between two steps {unnamed} evaluations ran, and which set each is "
                          f"of is unknown: {'they are numbered in their order' if apart else 'they are one number'}. "
                          "Name them: with tap.evaluation(name): ...", unknown=not apart)
        elif unnamed:
            self.tap.once("evaluation_unnamed", "loss/val is over all that was evaluated between two steps. If that is "
                          "more than one set, name each: with tap.evaluation(name): ...", unknown=False)
        if whole is not None:
            self.emit(self.eval_frame, self.validation_step, {}, _validation_fields, whole.taken, whole.device)
        if named:
            self._write_sets(named)

    def _write_sets(self, named: dict[str, DomainSums]) -> None:
        self.sets += [name for name in named if name not in self.sets]
        if len(self.sets) > MOST_SETS:
            self.tap.once("evaluation_sets_many", f"There are more than {MOST_SETS} evaluation sets by name: the "
                          "others are not recorded. Give a set the same name every time.")
            self.sets = self.sets[:MOST_SETS]
        names, step = list(self.sets), self.validation_step
        kept = {name: sums.taken() for name, sums in named.items() if name in names}
        values = {f"{part} of {name}": value for name, taken in kept.items() for part, value in taken.items()}

        def deliver(host: dict[str, Any]) -> None:
            if self.set_frame is None or self.set_frame.header.labels["eval_set"] != tuple(names):
                self.set_frame = self.tap.frame("eval_sets", SET_FIELDS, labels=self.labels | {"eval_set": names})
            self.set_frame.append(step, _set_fields(host, names, len(self.labels["domain"])))

        self.tap.send(self, values, deliver)


SET_FIELDS = ("loss/val_set_sum", "loss/val_set_tokens", "loss/val_set_domain_sum", "loss/val_set_domain_tokens")


def _set_fields(host: dict[str, Any], names: list[str], domains: int) -> dict[str, Any]:
    """Sums per set, [E] and [E, D + 1]; 0 for a set that was not evaluated."""
    sums, tokens = np.zeros((len(names), domains)), np.zeros((len(names), domains), np.int64)
    for row, name in enumerate(names):
        if f"losses of {name}" in host:
            fields = DomainSums.fields({"losses": host[f"losses of {name}"], "tokens": host[f"tokens of {name}"]})
            sums[row], tokens[row] = fields["loss/domain_sum"], fields["loss/domain_tokens"]
    return dict(zip(SET_FIELDS, (sums.sum(axis=1), tokens.sum(axis=1), sums, tokens), strict=True))


def _validation_fields(host: dict[str, Any]) -> dict[str, Any]:
    fields = DomainSums.fields(host)
    del fields["loss/nonfinite_tokens"]
    return {name.replace("loss/", "loss/val_"): value for name, value in fields.items()}


def _unused_fields(host: dict[str, Any]) -> dict[str, Any]:
    fields = DomainSums.fields(host)
    return {"unused/forwards": fields["unused/forwards"], "unused/tokens": fields.get("loss/tokens", 0),
            "unused/nonfinite_tokens": fields.get("loss/nonfinite_tokens", 0)}


def returned_log_probs(output: Any) -> tuple[Tensor, Tensor] | None:
    """Log-probability of every target [B, S - 1] or [B, S] and where there is one, in a model's output.

    As TRL's fused language-model head returns them, which makes no logits:
    https://github.com/huggingface/trl/blob/main/trl/trainer/utils.py (FusedCausalLMOutput).
    """
    values, mask = getattr(output, "log_probs", None), getattr(output, "label_mask", None)
    if isinstance(values, Tensor) and isinstance(mask, Tensor) and values.dim() == 2 and values.shape == mask.shape:
        return values, mask
    return None


RETURNED = {"loss/returned_sum": ("loss",), "loss/aux_sum": ("aux_loss",), "loss/z_sum": ("z_loss", "router_z_loss")}
"""Names in a model's output that hold each returned loss."""


def returned_losses(output: Any) -> Iterator[tuple[str, Tensor]]:
    """The losses in a model's output, by field: named ones, else the only number among what it returned."""
    for field, names in RETURNED.items():
        found = (output.get(n) if isinstance(output, Mapping) else getattr(output, n, None) for n in names)
        value = next((v for v in found if isinstance(v, Tensor) and v.numel() == 1), None)
        if value is not None:
            yield field, value
        elif field == "loss/returned_sum":
            numbers = [v for v in (output if isinstance(output, tuple | list) else [output])
                       if isinstance(v, Tensor) and v.dim() == 0 and v.is_floating_point()]
            if len(numbers) == 1:
                yield field, numbers[0]


class DomainSums(Tally):
    """Losses added up over tokens, per domain."""

    FIELDS = ("loss/sum", "loss/tokens", "loss/nonfinite_tokens", "loss/domain_sum", "loss/domain_tokens")

    def __init__(self, domains: int) -> None:
        super().__init__(domains + 2)

    def _zeros(self, device: torch.device) -> tuple[Tensor, ...]:
        """Sums of losses [D + 2], and counts of tokens [(D + 2) * 2], those of finite losses after the others."""
        return (zeros(self.size, dtype=torch.float64, device=device),
                zeros(2 * self.size, dtype=torch.int64, device=device))

    def _put(self, tables: tuple[Tensor, ...], rows: Tensor, weights: Tensor | None) -> None:
        """Add losses [N] at rows [N] of the D + 2 rows; what is in the last row is not counted."""
        assert weights is not None
        losses, tokens = tables
        losses.index_add_(0, rows, weights.to(torch.float64))
        count(tokens, torch.add(weights.abs() < math.inf, rows, alpha=2))

    @property
    def values(self) -> tuple[Tensor, ...] | None:
        """Sums of losses and counts of tokens."""
        return self.tables

    def taken(self) -> dict[str, Tensor]:
        """The sums as `fields` takes them; {} if there are none."""
        tables = self.tables
        return {} if tables is None else {"losses": tables[0], "tokens": tables[1]}

    @staticmethod
    def fields(host: dict[str, Any]) -> dict[str, Any]:
        """The training frame's fields of a row that holds sums."""
        if "losses" not in host:
            return host
        losses, tokens = host.pop("losses")[:-1], host.pop("tokens")[:-2]
        nonfinite, finite = tokens[::2], tokens[1::2]
        return host | {"loss/sum": sum(losses.tolist()), "loss/tokens": sum(tokens.tolist()),
                       "loss/nonfinite_tokens": sum(nonfinite.tolist()), "loss/domain_sum": losses,
                       "loss/domain_tokens": nonfinite + finite}


def _number(value: Tensor) -> Tensor | float:
    """A number of the model's as it is now; read at once where that waits for nothing."""
    value = value.detach()
    return value.to(torch.float64).reshape(()) if is_asynchronous(value.device) else value.item()


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Values per row, or per token, for every element of `like`."""
    values = values.to(like.device)
    return values.reshape(values.shape + (1,) * (like.dim() - values.dim())).expand(like.shape)
