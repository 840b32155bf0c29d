"""Find the routers of any mixture-of-experts model, and read which experts they chose.

A router is tapped where its choice is real: at the inputs of the experts that compute it (the indices there are
global even under expert parallelism), or else at the router's own output. Nothing is recomputed from logits where
the module gives indices, because biased, grouped, hashed and sampled routers choose differently from a plain top-k.

Shapes: T tokens (batch x sequence, flattened row by row), k choices per token, E experts.

    search = find_routers(model)
    if search.missed: print(search.missed)
    handles = [register(site, count) for site in search.sites]      # count(site, indices_Tk)

What it rests on, in transformers 5.23: `_can_record_outputs["router_logits"]` names the routers of a model class
(utils/output_capturing.py), and experts modules take `(hidden_states, top_k_index, top_k_weights)`
(integrations/moe.py), with `num_experts` as the index of "no expert here".
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Reader = Callable[["RouterSite", tuple[Any, ...]], Tensor | None]


@dataclass(frozen=True, slots=True)
class RouterSite:
    """One router of a model: where it is and how to read its choices."""

    layer: str
    """Index of the block ("3"); with the path that tells it apart where that is ambiguous ("encoder.block.3")."""
    module_name: str
    """Qualified name of the module that is hooked: the experts or the router itself."""
    module: nn.Module
    num_experts: int
    """E: the experts a token can be sent to, zero-compute experts included, shared experts not."""
    top_k: int | None
    how: Literal["declared", "shape"]
    """The model class names this router as one to record, or it was found by what its module takes or returns."""
    tap: Literal["input", "output"]
    """Which values of the module hold the choice."""
    derived: bool
    """The choice is reconstructed from gates that are zero where not chosen, not read from indices."""
    read: Reader
    """read(site, values) -> expert indices [T, k] in 0..E, or None where the values hold no choice.

    `values` are the module's inputs or outputs, as `tap` says. Index E means "no expert": the token was dropped at
    capacity or skipped. So a histogram needs E + 1 bins, of which the last counts the drops. T is the whole batch,
    padding included, except where a block routes a part of it (text and vision apart in Ernie 4.5 VL).
    """


@dataclass(frozen=True, slots=True)
class RouterSearch:
    """The routers of a model, and what could not be found."""

    sites: tuple[RouterSite, ...]
    missed: str | None
    """One sentence that names the mixture-of-experts blocks without a readable router; None if there are none."""


# ---- reading a choice ------------------------------------------------------------------------------------------


def _beside_weights(site: RouterSite, values: tuple[Any, ...]) -> Tensor | None:
    """The one integer tensor [.., k] that stands beside a float tensor of the same shape: indices and weights."""
    integers, floats = [], set()
    for value in values:
        if isinstance(value, Tensor) and value.ndim >= 2:
            if value.is_floating_point():
                floats.add(value.shape)
            elif value.dtype is not torch.bool:
                integers.append(value)
    found = [v for v in integers if v.shape in floats]
    if len(found) != 1:
        return None
    return found[0] if found[0].ndim == 2 else found[0].flatten(0, -2)


def _alone(site: RouterSite, values: tuple[Any, ...]) -> Tensor | None:
    """The only input of an embedding of experts."""
    indices: Tensor = values[0]
    return indices.flatten(0, -2)


def _gates(position: int) -> Reader:
    """Reader of gates [.., E] that are exactly zero where an expert was not chosen."""

    @torch.no_grad()
    def read(site: RouterSite, values: tuple[Any, ...]) -> Tensor | None:
        gates_TE: Tensor = values[position].flatten(0, -2)
        top = gates_TE.topk(site.top_k or 1, dim=-1)
        return top.indices.masked_fill(top.values == 0, site.num_experts)

    return read


def _unsort(site: RouterSite, values: tuple[Any, ...]) -> Tensor | None:
    """JetMoe returns the permutation that sorts the choices [T * k] by expert, and how many fell to each expert."""
    order: Tensor = values[0]
    # Fills need no copy from the host, unlike a tensor made of the sizes.
    by_expert = torch.cat([order.new_full((size,), expert) for expert, size in enumerate(values[3])])
    return torch.empty_like(order).scatter_(0, order, by_expert).view(-1, site.top_k or 1)


def _skippable(site: RouterSite, values: tuple[Any, ...]) -> Tensor | None:
    """Zaya sends a skipped token to expert 0 with weight 0; an expert that was chosen never has weight 0."""
    weights, indices = values[1:3]
    chosen: Tensor = indices.masked_fill(weights == 0, site.num_experts)
    return chosen


@dataclass(frozen=True, slots=True)
class _Rule:
    read: Reader
    child: str = ""
    top_k: int | None = None
    derived: bool = False


# Routers that do not return indices beside weights, by class name.
_RULES: dict[str, _Rule] = {
    # Product keys pick rows of two embeddings, which get the same indices.
    "DogeCDMoE": _Rule(_alone, child="down_embed"),
    "JetMoeTopKGating": _Rule(_unsort),
    # sigmoid(-inf) = 0 for the others; a chosen score is zero only below a logit of -103 (-17 in float16).
    "Llama4Router": _Rule(_gates(0), derived=True),
    # Both choices after the capacity limit; output 0 holds the first choice only.
    "NllbMoeTop2Router": _Rule(_gates(1), top_k=2, derived=True),
    # A one-hot row, or zeros for a token beyond the capacity.
    "SwitchTransformersTop1Router": _Rule(_gates(0), top_k=1),
    "ZayaRouter": _Rule(_skippable),
}


# ---- finding the sites -----------------------------------------------------------------------------------------

_INDEX_ARGUMENT = re.compile(r"(top_?k|router|expert|selected)s?_(ind(ex|ices)|idx|ids?|experts?)")
_ROUTER_CLASS = re.compile(r"rout|gat(e|ing)$|top_?k", re.IGNORECASE)
_EXPERT_COUNT = re.compile(r"(moe_)?n(um)?_((local|routed)_)?experts|total_experts")
_WRAPPER = re.compile(r"^module(\.|$)|(^|\.)_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)(?=\.|$)")
_TOP_K = re.compile(r"(moe_)?top_?k(_experts)?|num_experts_per_tok(en)?")


def find_routers(model: nn.Module) -> RouterSearch:
    """Every router of `model`, found without running it, and a sentence about those that could not be found.

    In each block the first that applies is tapped: a class with a rule of its own, experts that take indices as an
    argument, a router that the model class declares, a module that is named and built like a router.
    """
    modules = dict(_modules(model))
    declared = set(_declared(model))
    taps = [name for name, module in modules.items() if type(module).__name__ in _RULES]
    for fits in (_takes_indices, lambda _, name: name in declared, _is_router):
        taps += [name for name in modules if fits(modules, name) and not _covered(name, taps)]
    labels = _labels(taps)
    found = [_site(modules, n, labels[n], any(_covered(d, [n]) for d in declared)) for n in modules if n in labels]
    sites = tuple(site for site in found if site)
    return RouterSearch(sites, _missed(model, modules, declared, [site.module_name for site in sites]))


def _modules(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The named modules, without what DDP, FSDP, torch.compile and checkpoint wrappers add to the names."""
    for name, module in model.named_modules(prefix=prefix):
        yield _WRAPPER.sub("", name).lstrip("."), module


def _declared(model: nn.Module) -> Iterator[str]:
    """Modules that a transformers model class names as routers, in `_can_record_outputs["router_logits"]`."""
    for prefix, owner in _modules(model):
        recorded = getattr(type(owner), "_can_record_outputs", None)
        specs = recorded.get("router_logits", []) if isinstance(recorded, Mapping) else []
        for spec in specs if isinstance(specs, list) else [specs]:
            target, within = getattr(spec, "target_class", spec), getattr(spec, "layer_name", None) or ""
            for name, module in _modules(owner, prefix):
                if isinstance(target, type) and isinstance(module, target) and within in name:
                    yield name


def _takes_indices(modules: Mapping[str, nn.Module], name: str) -> bool:
    """Experts whose forward has an argument for indices. The class is asked: parallelism may replace the method."""
    kind = type(modules[name])
    if "expert" not in (kind.__name__ + name.rpartition(".")[2]).lower():
        return False
    return any(_INDEX_ARGUMENT.fullmatch(argument) for argument in inspect.signature(kind.forward).parameters)


def _is_router(modules: Mapping[str, nn.Module], name: str) -> bool:
    kind = type(modules[name])
    if kind.__module__.startswith("torch.nn") or not _ROUTER_CLASS.search(kind.__name__):
        return False
    return bool(_counts(modules[name], _EXPERT_COUNT)) or f"{_parent(name)}experts" in modules


def _covered(name: str, taps: list[str]) -> bool:
    """Whether a tap sits in the same block as the module `name`, or below it."""
    return any(_parent(tap) == _parent(name) or tap.startswith(f"{name}.") for tap in taps)


def _parent(name: str) -> str:
    """Prefix of a module's siblings: "layers.0.mlp." of "layers.0.mlp.gate", "" at the top."""
    return name[: name.rfind(".") + 1]


def _site(modules: Mapping[str, nn.Module], name: str, label: str, declared: bool) -> RouterSite | None:
    rule = _RULES.get(type(modules[name]).__name__)
    block = [modules[name], *modules[_parent(name)[:-1]].children(), modules[_parent(name)[:-1]]]
    # The largest count of the block: an expert-parallel rank changes `num_experts` of its experts to its own share,
    # but not the router's count or the (distributed) weights [E, ..]; zero-compute experts are in the total only.
    counts = [n for module in block for n in _counts(module, _EXPERT_COUNT)]
    counts += [p.shape[0] for p in modules[name].parameters(recurse=False) if p.ndim == 3]
    if not counts:
        return None
    top_k = [rule.top_k] if rule and rule.top_k else [n for module in block for n in _counts(module, _TOP_K)]
    top_k += [n for module in block for n in _counts(getattr(module, "config", None), _TOP_K)]
    tapped = f"{name}.{rule.child}" if rule and rule.child else name
    return RouterSite(
        layer=label,
        module_name=tapped,
        module=modules[tapped],
        num_experts=max(counts),
        top_k=top_k[0] if top_k else None,
        how="declared" if declared else "shape",
        tap="input" if (rule and rule.child) or _takes_indices(modules, name) else "output",
        derived=bool(rule and rule.derived),
        read=rule.read if rule else _beside_weights,
    )


def _counts(holder: object, pattern: re.Pattern[str]) -> list[int]:
    fields = holder if isinstance(holder, Mapping) else getattr(holder, "__dict__", {})
    return [v for k, v in fields.items() if type(v) is int and v > 0 and pattern.fullmatch(str(k))]


def _labels(names: list[str]) -> dict[str, str]:
    """Block index of each tap, with as much of its path as it takes to be unambiguous."""
    parts = {n: m.groups("") if (m := re.search(r"^(?:(.*?)\.)?(\d+)(\..+)$", n)) else ("", n, "") for n in names}
    stacks = {stack for stack, _, _ in parts.values()}
    labels = {n: f"{stack}.{index}" if len(stacks) > 1 and stack else index for n, (stack, index, _) in parts.items()}
    shared = Counter(labels.values())
    return {n: label + _parent(parts[n][2])[:-1] if shared[label] > 1 else label for n, label in labels.items()}


def _missed(model: nn.Module, modules: Mapping[str, nn.Module], declared: set[str], taps: list[str]) -> str | None:
    """Blocks that hold experts or a declared router but no tap; or a config that counts experts and no tap at all."""
    names = _missed_blocks(model, modules, declared, taps)
    if names:
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"No router could be read in {len(names)} block(s) with experts: {', '.join(names[:8])}{more}."
    experts = 0 if taps else _experts_of(getattr(model, "config", None))
    if experts > 1:
        return f"The config of {type(model).__name__} counts {experts} experts, but no router was found in it."
    return None


def _missed_blocks(model: nn.Module, modules: Mapping[str, nn.Module], declared: set[str], taps: list[str]
                   ) -> list[str]:
    held = [n for n in modules if n in declared or n.rpartition(".")[2] == "experts"]
    blocks = {_parent(n)[:-1] for n in held if not any(t.startswith((f"{n}.", _parent(n))) for t in taps)}
    return [n or type(model).__name__ for n in sorted(blocks, key=list(modules).index)]


def count_missed(model: nn.Module, sites: Iterable[RouterSite]) -> int:
    """How many blocks with experts have none of these routers; at least 1, where only a config tells of experts."""
    names = [site.module_name for site in sites]
    return max(1, len(_missed_blocks(model, dict(_modules(model)), set(_declared(model)), names)))


def _experts_of(config: object) -> int:
    """Experts that a config and its sub-configs count; 0 where it says that the model is dense all the same."""
    fields = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    if fields.get("is_moe") is False or fields.get("enable_moe_block") is False:
        return 0
    subs = [_experts_of(v) for k, v in fields.items() if str(k).endswith("config")]
    return max([*_counts(config, _EXPERT_COUNT), *subs], default=0)


# ---- the hook --------------------------------------------------------------------------------------------------


def recomputing() -> bool:
    """Whether this forward is activation checkpointing's second one, inside a backward pass.

    True in both modes, reentrant and not; `torch.utils.checkpoint` asks the same question the same way. Gradients
    being enabled says nothing: the reentrant mode runs the first forward without them.
    """
    return torch._C._current_graph_task_id() != -1


def register(site: RouterSite, callback: Callable[[RouterSite, Tensor | None], None]) -> RemovableHandle:
    """Call `callback(site, indices_Tk)` once for every forward of the router that is not a recomputation.

    The indices are None where the router ran but its choice could not be read: report that, it is never silent.
    Nothing is kept, changed or copied to the host. Readers compute with integers, or with gradients off, and so must
    the callback: an operation that saves tensors in the first forward but not in the recomputation breaks
    checkpointing.
    """

    def tell(values: tuple[Any, ...]) -> None:
        if not recomputing():
            callback(site, site.read(site, values))

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tell((*args, *kwargs.values()))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tell(tuple(output) if isinstance(output, (tuple, list)) else (output,))

    if site.tap == "input":
        return site.module.register_forward_pre_hook(before, with_kwargs=True)
    return site.module.register_forward_hook(after)
