"""Which experts the tokens go to, per layer, and for which data domain.

Metrics recorded:
    router/tokens          every step: tokens per layer and expert since the last row
    router/domain_tokens   every 50 steps: the same per domain

Indices come from `collectors.model.routers`: the routers' own choice, with recomputation under activation checkpointing
left out. Padding is not counted.

T tokens, k choices per token, L layers, E experts, D domains.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from collectors.batch import Batch
from collectors.model.routers import RouterSite, count_missed, find_routers, register
from collectors.signals.collector import Collector
from collectors.tally import Tally
from trainvitals.store import FrameWriter

HELD = 1 << 18
"""Choices of one forward that may wait to be counted together: 2 MB."""

Loads = dict[torch.device, Tally]
"""Choices per layer, domain and expert, by device: [L * (D + 2) * (E + 3)]."""


class RouterCollector(Collector):
    """Counts of routed tokens, kept on the device."""

    name = "router"
    also = {"router_domain": 50}

    def open(self) -> None:
        self.every_domain = self.tap.cadence("router_domain")
        self.routers = 0
        """Routers of the model, those included that could not be found or have another number of experts."""
        self.sites = self._find()
        self.starts: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
        self.rewind()
        if not self.sites:
            return
        experts = self.sites[0].num_experts
        labels = {"router_layer": [site.layer for site in self.sites], "expert": [str(e) for e in range(experts)]}
        self.frame = self.tap.frame("router", ["router/tokens"], labels=labels)
        self.domain_frame = self.tap.frame("router_domain", ["router/domain_tokens"],
                                                  labels=labels | {"domain": self.tap.domain_labels})
        for layer, site in enumerate(self.sites):
            self.handles.append(self._shielded(register(site, self._callback(layer))))

    def _find(self) -> list[RouterSite]:
        """Sites whose loads form one table: as many experts as most layers have."""
        search = find_routers(self.tap.core)
        self.routers = len(search.sites)
        if search.missed:
            self.routers += count_missed(self.tap.core, search.sites)
            self.tap.tell("router_missed", search.missed)
        if not search.sites:
            return []
        experts, _ = Counter(site.num_experts for site in search.sites).most_common(1)[0]
        others = [site.layer for site in search.sites if site.num_experts != experts]
        if others:
            self.tap.tell("router_uneven", f"Layers {', '.join(others)} do not have {experts} experts like most "
                           "layers: their load is not recorded.")
        return [site for site in search.sites if site.num_experts == experts]

    def rewind(self) -> None:
        self.held: list[tuple[int, Batch | None, Tensor]] = []
        """Layer, forward and choices that are not counted yet."""
        self.held_numel = 0
        self.since_row: Loads = {}
        """Choices since the last row, without those that an evaluation or an aside made."""
        self.since_domain_row: Loads = {}

    def _callback(self, layer: int) -> Callable[[RouterSite, Tensor | None], None]:
        return lambda site, indices_Tk: self._count(layer, indices_Tk)

    def _shielded(self, handle: RemovableHandle) -> RemovableHandle:
        """Put what `register` placed in the model under the tap's guard, and out of copies of the model."""
        hooks = handle.hooks_dict_ref()
        assert hooks is not None
        hooks[handle.id] = self.tap.hook(self, hooks[handle.id])
        return handle

    def _count(self, layer: int, indices_Tk: Tensor | None) -> None:
        batch = self.tap.batch
        if batch is not None and batch.open and not batch.training:
            return
        if indices_Tk is None:
            self.tap.once("router_unread", f"The router of layer {self.sites[layer].layer} ran, but its choice could "
                          "not be read: the loads of such layers are missing.")
            return
        # A copy: the model may reuse its own tensor before the layers are counted together.
        self.held.append((layer, batch, indices_Tk.clone()))
        self.held_numel += indices_Tk.numel()
        if self.held_numel > HELD:
            self._count_held()

    def _of_experts(self, batch: Batch | None, indices: Tensor, layer: int) -> bool:
        """Whether rows are experts and not tokens (expert choice, https://arxiv.org/abs/2202.09368)."""
        experts = self.sites[layer].num_experts
        tokens = batch.shape[0] * batch.shape[1] if batch is not None and batch.shape is not None else None
        return tokens is not None and tokens != experts == indices.shape[0]

    def output(self, batch: Batch, output: Any) -> None:
        self._count_held()

    def _count_held(self) -> None:
        """Count the choices of several layers at once: on small models the number of operations is what costs."""
        if not self.held:
            return
        held, self.held, self.held_numel = self.held, [], 0
        by_token = []
        for layer, batch, choices in held:
            if self._of_experts(batch, choices, layer):
                self.tap.once("router_not_by_token", f"The router of layer {self.sites[layer].layer} gave a row of "
                              "choices per expert, not per token: experts choose their tokens there, and loads mean "
                              "something else. They are not recorded.")
            else:
                by_token.append((layer, batch, choices))
        for _, alike in groupby(by_token, key=lambda one: (id(one[1]), one[2].shape, one[2].dtype, one[2].device)):
            layers, batches, together = zip(*alike, strict=True)
            self._count_together(batches[0], layers, together)

    def _count_together(self, batch: Batch | None, layers: tuple[int, ...], held: tuple[Tensor, ...]) -> None:
        tokens, device = held[0].shape[0], held[0].device
        domains, experts = len(self.tap.domain_names), self.sites[0].num_experts
        aligned = batch is not None and batch.shape is not None and tokens == batch.shape[0] * batch.shape[1]
        if batch is not None and aligned:
            batch.keep_domains()
        else:
            self.tap.once("router_unaligned", f"A router saw {tokens} tokens, the batch has the shape "
                          f"{batch.shape if batch else None}: its counts are not split by domain, padding included.")

        def cells() -> list[tuple[Tensor, None]]:
            rows_T = (batch.cells.to(device) if batch is not None and aligned else
                      torch.full((tokens,), domains, dtype=torch.int64, device=device))
            # -1 and E mean "no expert", and have a column each; what is beyond cannot be a choice, and has the last.
            columns_lTk = torch.stack(held).to(torch.int64).clamp_(-1, experts + 1)
            columns_lTk += torch.add(self._starts(layers, device), rows_T[:, None], alpha=experts + 3)
            return [(columns_lTk.view(-1), None)]

        size = len(self.sites) * (domains + 2) * (experts + 3)
        loads: Loads = {device: Tally(size)}
        loads[device].add(cells, sum(choice.numel() for choice in held), device)
        if batch is None:
            # A router that ran outside of the model's forward counts at once: nothing will say what it ran for.
            self._count_for_rows(loads)
        else:
            batch.routers_read.update(layers)
            _merge(batch.notes.setdefault(self.name, {}), loads, size)

    def trained(self, batch: Batch) -> None:
        if self.name in batch.notes:
            self._count_for_rows(batch.notes[self.name])

    def _count_for_rows(self, loads: Loads) -> None:
        size = next(iter(loads.values())).size
        _merge(self.since_row, loads, size)
        if self.every_domain:
            _merge(self.since_domain_row, loads, size)

    def _starts(self, layers: tuple[int, ...], device: torch.device) -> Tensor:
        """Where each layer's expert 0 of row 0 is in the counts, [l, 1, 1]; copied to the device once."""
        if (layers, device) not in self.starts:
            size = (len(self.tap.domain_names) + 2) * (self.sites[0].num_experts + 3)
            self.starts[layers, device] = torch.tensor([size * i + 1 for i in layers], device=device).view(-1, 1, 1)
        return self.starts[layers, device]

    def after_step(self, step: int) -> None:
        if not self.sites:
            return
        self._count_held()
        if self.due(step) and self.since_row:
            loads, self.since_row = self.since_row, {}
            self._send(self.frame, step, "router/tokens", loads, lambda counts_LDE: counts_LDE.sum(dim=1))
        if self.every_domain and step % self.every_domain == 0 and self.since_domain_row:
            loads, self.since_domain_row = self.since_domain_row, {}
            self._send(self.domain_frame, step, "router/domain_tokens", loads,
                       lambda counts_LDE: counts_LDE.transpose(0, 1))

    def _send(self, frame: FrameWriter, step: int, name: str, loads: Loads, counts: Callable[[Tensor], Tensor]) -> None:
        """Write a row of counts, unless some of what was counted cannot have been a choice of experts."""
        now = time.time()

        def work() -> dict[str, Tensor]:
            whole = self._table(loads)
            return {name: counts(whole[:, :-1, 1:-2]), "impossible": whole[..., -1].sum()}

        def deliver(host: dict[str, Any]) -> None:
            if host["impossible"]:
                self.tap.once("router_impossible", "A router's integers reach beyond its number of experts: they are "
                              "no choice of experts, and no load is recorded. Please report the model's class.")
            else:
                frame.append(step, {name: host[name]}, now)

        self.tap.send(self, {}, deliver, work, next(iter(loads)))

    def _table(self, loads: Loads) -> Tensor:
        """Counts, int64 [L, D + 2, E + 3]."""
        first, *others = [counts for tally in loads.values() if (counts := tally.counts) is not None]
        whole = sum((other.to(first.device) for other in others), first)
        return whole.view(len(self.sites), len(self.tap.domain_names) + 2, -1)


def _merge(loads: Loads, more: Loads, size: int) -> None:
    for device, tally in more.items():
        if device not in loads:
            loads[device] = Tally(size)
        loads[device].merge(tally)
