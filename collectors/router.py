"""Which experts the tokens go to, per layer, and for which data domain.

Metrics recorded:
    router/tokens          every step: tokens per layer and expert since the last row
    router/domain_tokens   every 50 steps: the same per domain

Indices come from `collectors.routers`: the routers' own choice, with recomputation under activation checkpointing
left out. Padding is not counted.

T tokens, k choices per token, L layers, E experts, D domains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from collectors.collector import Collector, zeros
from collectors.routers import RouterSite, find_routers, register


class RouterCollector(Collector):
    """Counts of routed tokens, kept on the device."""

    name = "router"
    default_every = 1

    def open(self) -> None:
        self.every_domain = self.tap.cadence("router_domain")
        self.sites = self._find()
        if not self.sites:
            return
        experts = self.sites[0].num_experts
        labels = {"router_layer": [site.layer for site in self.sites], "expert": [str(e) for e in range(experts)]}
        self.frame = self.tap.writer.frame("router", ["router/tokens"], labels=labels)
        self.domain_frame = self.tap.writer.frame("router_domain", ["router/domain_tokens"],
                                                  labels=labels | {"domain": self.tap.domain_labels})
        self.rewind()
        for layer, site in enumerate(self.sites):
            self.handles.append(self._shielded(register(site, self._callback(layer))))

    def _find(self) -> list[RouterSite]:
        """Sites whose loads form one table: as many experts as most layers have."""
        search = find_routers(self.tap.core)
        if search.missed:
            self.tap.event("router_missed", search.missed)
        if not search.sites:
            return []
        experts, _ = Counter(site.num_experts for site in search.sites).most_common(1)[0]
        others = [site.layer for site in search.sites if site.num_experts != experts]
        if others:
            self.tap.event("router_uneven", f"Layers {', '.join(others)} do not have {experts} experts like most "
                           "layers: their load is not recorded.")
        return [site for site in search.sites if site.num_experts == experts]

    def rewind(self) -> None:
        self.counts: list[Tensor | None] = [None] * len(self.sites)
        self.pending: Tensor | None = None
        self.window: Tensor | None = None

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
        experts, domains = self.sites[layer].num_experts, len(self.tap.domain_names)
        indices_Tk = indices_Tk.detach()
        tokens = indices_Tk.shape[0]
        if batch is not None and batch.shape is not None and tokens == batch.shape[0] * batch.shape[1]:
            cells_T = batch.cells.to(indices_Tk.device)
        else:
            self.tap.once("router_unaligned", f"A router saw {tokens} tokens, the batch has the shape "
                          f"{batch.shape if batch else None}: its counts are not split by domain, padding included.")
            cells_T = torch.full((tokens,), domains, dtype=torch.int64, device=indices_Tk.device)
        # An index outside of 0..E-1 means "no expert"; the last column takes it.
        columns_Tk = indices_Tk.to(torch.int64).clamp(-1, experts) % (experts + 1)
        flat = (cells_T[:, None] * (experts + 1) + columns_Tk).reshape(-1)
        counts = self.counts[layer]
        if counts is None:
            counts = zeros((domains + 2) * (experts + 1), dtype=torch.int64, device=flat.device)
            self.counts[layer] = counts
        counts.scatter_add_(0, flat, torch.ones_like(flat))

    def after_step(self, step: int) -> None:
        if not self.sites or not (self.due(step) or self._domains_due(step)):
            return
        counts_DLE = self._table()
        if counts_DLE is None:
            return
        if self.every_domain:
            self.window = counts_DLE if self.window is None else self.window + counts_DLE
        self.pending = counts_DLE if self.pending is None else self.pending + counts_DLE
        if self.due(step):
            self.emit(self.frame, step, {"router/tokens": self.pending.sum(dim=0)})
            self.pending = None
        if self._domains_due(step) and self.window is not None:
            self.emit(self.domain_frame, step, {"router/domain_tokens": self.window})
            self.window = None

    def _domains_due(self, step: int) -> bool:
        return bool(self.every_domain) and step % self.every_domain == 0

    def _table(self) -> Tensor | None:
        """Counts since the last call, int64 [D + 1, L, E]; None if no router ran."""
        ran = [counts for counts in self.counts if counts is not None]
        if not ran:
            return None
        rows, columns = len(self.tap.domain_names) + 2, self.sites[0].num_experts + 1
        layers = [torch.zeros_like(ran[0]) if c is None else c.to(ran[0].device) for c in self.counts]
        self.counts = [None] * len(self.sites)
        return torch.stack(layers).view(len(layers), rows, columns)[:, :-1, :-1].transpose(0, 1)
