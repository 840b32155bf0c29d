"""What the tap knows about the tokens of one forward.

B rows, S positions, D planned domains. Domain ids run from 0 to D - 1; D stands for "unattributed" and D + 1 for
positions that hold no token (padding, ignored targets), so that counters have D + 2 rows and drop the last one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""The label that torch's and transformers' losses leave out."""


class Batch:
    """The inputs of one forward. Ids and masks are made on the model's device when a collector first asks."""

    def __init__(self, inputs: Mapping[str, Any], domain: Any, names: Sequence[str], training: bool,
                 in_training_mode: bool = True) -> None:
        """`inputs` are the forward's arguments by name, `domain` what the batch carried under that name, or None."""
        self.training = training
        """Whether the forward records a graph: only then can its gradient become part of a step."""
        self.in_training_mode = in_training_mode
        """`module.training` at the forward; what it says of dropout, it does not say of what the forward is for."""
        self.coming_back = False
        """Whether a gradient comes back through the forward's output in the backward that runs."""
        self.reached = False
        """Whether a gradient has come back through the forward's output, and on to the parameters."""
        self.probed = False
        """Whether one came back that `torch.autograd.grad` returned to the loop."""
        self.settled = False
        """Whether it has been told what the forward was for."""
        self.share_of_one = inputs.get("num_items_in_batch") is not None
        """Whether the returned loss is this forward's share of the step's, as transformers' Trainer asks for."""
        self.notes: dict[str, Any] = {}
        """What collectors keep of this forward until it is known what it was for, by the collector's name."""
        self.open = True
        """Whether the forward is still running."""
        self.has_labels = inputs.get("labels") is not None
        self.loss_seen = False
        self.routers_read: set[int] = set()
        """Routers whose choice was read, by their number."""
        self.domain = domain
        self._kept = False
        self._ids_kept = False
        self.names = names
        self.input_ids = _input_ids(inputs)
        like = self.input_ids if self.input_ids is not None else inputs.get("inputs_embeds")
        self.shape: tuple[int, int] | None = None
        self.device: torch.device | None = None
        if isinstance(like, Tensor) and like.dim() >= 2:
            self.shape, self.device = (like.shape[0], like.shape[1]), like.device
        # No more than one value per position: a batch may be kept for two seconds.
        self._attention_mask = self._shaped(inputs.get("attention_mask"))
        self._position_ids = self._shaped(inputs.get("position_ids"))
        self._labels = inputs.get("labels", inputs.get("targets"))

    @property
    def evaluation(self) -> bool:
        """Whether the forward is one of an evaluation: no graph, and the module in evaluation mode."""
        return not self.training and not self.in_training_mode

    @property
    def domains(self) -> int:
        """D, which is also the id of unattributed tokens."""
        return len(self.names)

    @cached_property
    def mask(self) -> Tensor | None:
        """True where there is a token, [B, S]; None where the batch has no padding."""
        mask = self._attention_mask
        return mask if mask is None else mask.clone() if mask.dtype is torch.bool else mask != 0

    def keep_domains(self) -> None:
        """Take domains and mask as they are now: the loop may fill the same tensors with the next batch."""
        if self._kept or self.shape is None:
            return
        self._kept = True
        if isinstance(self.domain, Tensor):
            self.domain = self.domain.clone()
        else:
            _ = self.domain_ids
        _ = self.mask

    def keep_ids(self) -> None:
        """The same for token ids and positions."""
        if not self._ids_kept:
            self._ids_kept = True
            self.input_ids = None if self.input_ids is None else self.input_ids.clone()
            self._position_ids = None if self._position_ids is None else self._position_ids.clone()

    @cached_property
    def domain_ids(self) -> Tensor:
        """Domain of every position, int64 [B, S], within 0..D."""
        assert self.shape is not None and self.device is not None
        given = domain_tensor(self.domain, self.names, self.device) if self.domain is not None else None
        if given is not None and given.dim() == 1 and given.shape[0] == self.shape[0]:
            return given[:, None].expand(self.shape)
        if given is not None and tuple(given.shape) == self.shape:
            return given
        return torch.full(self.shape, self.domains, dtype=torch.int64, device=self.device)

    @cached_property
    def flat_ids(self) -> Tensor:
        """The same, int64 [B * S]."""
        return self.domain_ids.reshape(-1)

    @cached_property
    def cells(self) -> Tensor:
        """Row of a counter with D + 2 rows that every position belongs to, int64 [B * S]."""
        if self.mask is None:
            return self.flat_ids
        return torch.where(self.mask.reshape(-1), self.flat_ids, self.domains + 1)

    @cached_property
    def tokens(self) -> int | Tensor:
        """Number of tokens, padding excluded."""
        if self.mask is not None:
            return self.mask.sum()
        return self.shape[0] * self.shape[1] if self.shape else 0

    @cached_property
    def documents(self) -> int | Tensor:
        """Number of documents: where positions restart, else one per row."""
        positions = self._position_ids
        if positions is None:
            return self.shape[0] if self.shape else 0
        restarts = positions.diff(dim=1) != 1
        if self.mask is None:
            return restarts.sum() + positions.shape[0]
        # A row that begins with padding has its first token after it.
        return ((restarts | ~self.mask[:, :-1]) & self.mask[:, 1:]).sum() + self.mask[:, 0].sum()

    def counted_targets(self, shape: tuple[int, ...]) -> Tensor | None:
        """True where a loss of this shape has a target, by the labels of the batch; None where these do not tell."""
        labels = self._labels
        if not isinstance(labels, Tensor) or labels.dim() != 2:
            return None
        for candidate in (labels, labels[:, 1:]):
            if math.prod(shape) == candidate.numel() and shape[0] in (candidate.shape[0], candidate.numel()):
                return (candidate != IGNORED).reshape(shape)
        return None

    def target_ids(self, targets: int, shifted: bool, one_piece: bool = True) -> Tensor | None:
        """Domain of every target of a flattened loss, int64 [targets]; None where the two cannot be aligned.

        A causal loss at position t predicts token t + 1, and belongs to that token's domain.
        """
        if self.shape is None:
            return None
        rows, positions = self.shape
        ids = self.domain_ids
        if targets == rows * positions and (self._by_row or not shifted):
            return self.flat_ids
        if targets == rows * positions:
            return torch.cat([ids[:, 1:], ids[:, -1:]], dim=1).reshape(-1)
        if shifted and targets == rows * (positions - 1):
            return ids[:, 1:].reshape(-1)
        if rows and targets % rows == 0 and self._by_row and one_piece:
            return ids[:, :1].expand(rows, targets // rows).reshape(-1)
        return None

    @property
    def _by_row(self) -> bool:
        """Whether all positions of a row have one domain."""
        return self.domain is None or isinstance(self.domain, Tensor) and self.domain.dim() == 1 or (
            not isinstance(self.domain, Tensor) and all(not isinstance(d, Sequence) or isinstance(d, str)
                                                        for d in self.domain))

    def _shaped(self, tensor: Any) -> Tensor | None:
        """The tensor if it holds one value per position."""
        return tensor if isinstance(tensor, Tensor) and tuple(tensor.shape) == self.shape else None


def domain_tensor(domain: Any, names: Sequence[str], device: torch.device) -> Tensor:
    """Domain ids or names, one per row or one per token, as int64 ids within 0..D on the device."""
    if not isinstance(domain, Tensor):
        numbers = {name: i for i, name in enumerate(names)}
        domain = torch.as_tensor(_numbered(domain, numbers), dtype=torch.int64)
    if device.type == "cuda" and domain.device.type == "cpu" and not domain.is_pinned():
        # A copy from pageable memory may wait for the device.
        domain = domain.pin_memory()
    ids: Tensor = domain.to(device, torch.int64, non_blocking=True)
    # -1 and beyond become D.
    return ids.clamp(-1, len(names)).remainder_(len(names) + 1)


def _numbered(domain: Any, numbers: Mapping[str, int]) -> Any:
    if isinstance(domain, str):
        return numbers.get(domain, len(numbers))
    if isinstance(domain, (list, tuple)):
        return [_numbered(item, numbers) for item in domain]
    return domain


def _input_ids(inputs: Mapping[str, Any]) -> Tensor | None:
    """The forward's token ids [B, S]: by their usual name, else the first two-dimensional integer tensor."""
    named = inputs.get("input_ids")
    candidates = [named] if named is not None else [v for k, v in inputs.items() if k not in _NOT_INPUTS]
    for value in candidates:
        if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point() and (
                value.dtype is not torch.bool):
            return value
    return None


_NOT_INPUTS = ("attention_mask", "position_ids", "labels", "targets", "token_type_ids")
