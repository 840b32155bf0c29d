"""Which experts the tokens go to, per layer, and for which data domain.

Metrics recorded:
    router/tokens          every step: tokens per layer and expert since the last row
    router/domain_tokens   every 50 steps: the same per domain

Indices come from `collectors.model.routers`: the routers' own choice, with recomputation under activation checkpointing
left out. Padding is not counted.

T tokens, k choices per token, L layers, E experts, D domains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from collectors.batch import Batch
from collectors.model.routers import RouterSite, find_routers, register
from collectors.signals.collector import Collector, count, zeros
from trainvitals.store import FrameWriter

HELD = 1 << 18
"""Choices that may wait to be counted together: 2 MB."""


class RouterCollector(Collector):
    """Counts of routed tokens, kept on the device."""

    name = "router"
    also = {"router_domain": 50}

    def open(self) -> None:
        self.every_domain = self.tap.cadence("router_domain")
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
        if search.missed:
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
        self.held: list[Tensor] = []
        self.held_layers: tuple[int, ...] = ()
        self.held_like: tuple[Batch | None, torch.Size, torch.dtype, torch.device] | None = None
        self.counts: dict[torch.device, Tensor] = {}
        """Choices since the last row per domain, by device: [L * (D + 2) * (E + 3)]."""
        self.written: Tensor | int = 0
        """Those of them that rows without domains hold, [L, E]."""
        self.ran = False
        """Whether a router ran since the last row."""

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
        if self._of_experts(batch, indices_Tk, layer):
            self.tap.once("router_not_by_token", f"The router of layer {self.sites[layer].layer} gave a row of choices "
                          "per expert, not per token: experts choose their tokens there, and loads mean something "
                          "else. They are not recorded.")
            return
        like = (batch, indices_Tk.shape, indices_Tk.dtype, indices_Tk.device)
        if self.held_like != like or len(self.held) * indices_Tk.numel() > HELD:
            self._count_held()
        # A copy: the model may reuse its own tensor before the layers are counted together.
        self.held.append(indices_Tk.clone())
        self.held_layers += (layer,)
        self.held_like = like

    def _of_experts(self, batch: Batch | None, indices: Tensor, layer: int) -> bool:
        """Whether rows are experts and not tokens (expert choice, https://arxiv.org/abs/2202.09368)."""
        experts = self.sites[layer].num_experts
        tokens = batch.shape[0] * batch.shape[1] if batch is not None and batch.shape is not None else None
        return tokens is not None and tokens != experts == indices.shape[0]

    def output(self, batch: Batch, output: Any) -> None:
        self._count_held()

    def _count_held(self) -> None:
        """Count the choices of several layers at once: on small models the number of operations is what costs."""
        held, layers, like = self.held, self.held_layers, self.held_like
        self.held, self.held_layers, self.held_like = [], (), None
        if like is None:
            return
        batch, (tokens, _), _, device = like
        domains, experts = len(self.tap.domain_names), self.sites[0].num_experts
        if batch is not None and batch.shape is not None and tokens == batch.shape[0] * batch.shape[1]:
            rows_T = batch.cells.to(device)
        else:
            self.tap.once("router_unaligned", f"A router saw {tokens} tokens, the batch has the shape "
                          f"{batch.shape if batch else None}: its counts are not split by domain, padding included.")
            rows_T = torch.full((tokens,), domains, dtype=torch.int64, device=device)
        # -1 and E mean "no expert", and have a column each; what is beyond cannot be a choice, and has the last.
        columns_lTk = torch.stack(held).to(torch.int64).clamp_(-1, experts + 1)
        columns_lTk += torch.add(self._starts(layers, device), rows_T[:, None], alpha=experts + 3)
        self.ran = self.ran or batch is None
        # A router that ran outside of the model's forward counts at once: nothing will say what it ran for.
        counts = self.counts if batch is None else batch.notes.setdefault(self.name, {})
        if device not in counts:
            counts[device] = zeros(len(self.sites) * (domains + 2) * (experts + 3), dtype=torch.int64, device=device)
        count(counts[device], columns_lTk.view(-1))

    def trained(self, batch: Batch) -> None:
        for device, counts in batch.notes.get(self.name, {}).items():
            self.ran = True
            if device in self.counts:
                self.counts[device] += counts
            else:
                self.counts[device] = counts

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
        due, domains_due = self.due(step), bool(self.every_domain) and step % self.every_domain == 0
        if not self.counts or not (due or domains_due):
            return
        whole = self._table()
        counts_LDE, impossible = whole[:, :-1, 1:-2], whole[..., -1].sum()
        total_LE = counts_LDE.sum(dim=1)
        if due and self.ran:
            self._send(self.frame, step, "router/tokens", total_LE - self.written, impossible)
            self.written, self.ran = total_LE, False
        if domains_due:
            self._send(self.domain_frame, step, "router/domain_tokens", counts_LDE.transpose(0, 1), impossible)
            self.counts, self.written = {}, self.written - total_LE

    def _send(self, frame: FrameWriter, step: int, name: str, counts: Tensor, impossible: Tensor) -> None:
        """Write a row of counts, unless some of what was counted cannot have been a choice of experts."""
        def deliver(host: dict[str, Any]) -> None:
            if host["impossible"]:
                self.tap.once("router_impossible", "A router's integers reach beyond its number of experts: they are "
                              "no choice of experts, and no load is recorded. Please report the model's class.")
            else:
                frame.append(step, {name: host[name]})

        self.tap.send(self, {name: counts, "impossible": impossible}, deliver)

    def _table(self) -> Tensor:
        """Counts since the last row, int64 [L, D + 2, E + 3]."""
        first, *others = self.counts.values()
        whole = sum((other.to(first.device) for other in others), first)
        return whole.view(len(self.sites), len(self.tap.domain_names) + 2, -1)
