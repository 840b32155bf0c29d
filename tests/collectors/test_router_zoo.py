"""The routers that `find_routers` finds in every MoE language model of transformers, and the counts they give.

The oracle knows nothing of routers: it watches the arithmetic. Experts add their result for some rows of the hidden
states (`index_add_`) after picking one slice of a weight stack (`weights[expert]`), which says which (token, expert)
pairs were really computed. The few models that compute otherwise have an oracle of their own in `_Truth`.

Run the test of one model with `pytest tests/collectors/test_router_zoo.py -k Mixtral`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.overrides import TorchFunctionMode

from collectors.model.routers import RouterSearch, RouterSite, find_routers, register
from tests.collectors import moe_zoo

TESTED = tuple(name for name in moe_zoo.moe_classes() if name not in moe_zoo.UNTESTED)
NO_CHECKPOINTING = {"JetMoeForCausalLM"}
WRONG_EXPERTS = {"NllbMoeExperts"}
"""Experts that do not follow their router: transformers 5.23 turns NLLB's 0/1 mask [T, E] into one-hot rows, as if
it were indices, so that only the experts 0 and 1 ever run. What is counted is the choice of the router."""
BATCH, SEQUENCE = 3, 7

Counts = dict[str, list[int]]
"""Tokens per expert, by the path of the block that holds the router."""


def _block(name: str) -> str:
    return name.rpartition(".")[0]


class _Truth(TorchFunctionMode):
    """Records the (token, expert) pairs that a model computes while it is active."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.pairs: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._expert = -1
        self._inside: list[tuple[str, nn.Module]] = []
        for name, module in model.named_modules():
            kind = type(module).__name__
            computes = name.endswith(".experts") and kind not in WRONG_EXPERTS
            if computes or kind.endswith(("Router", "Gating", "CDMoE")):
                module.register_forward_pre_hook(lambda m, _, name=name: self._inside.append((name, m)))
                module.register_forward_hook(lambda *_: self._inside.pop() and None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._inside:
            name, module = self._inside[-1]
            self._watch(name, module, func, args, out)
        return out

    def _watch(self, name: str, module: nn.Module, func: Any, args: Any, out: Any) -> None:
        kind, called = type(module).__name__, getattr(func, "__name__", "")
        if kind in ("Llama4Router", "JetMoeTopKGating"):
            if called == "topk":  # experts that compute every token, or tokens in an order of their own
                self._add(_block(name), out[1])
        elif kind == "NllbMoeTop2Router":
            if called == "argmax":  # first choice, then second; with room for all at this size
                self._add(_block(name), out[:, None])
        elif kind == "DogeCDMoE":
            if func is F.embedding and args[1] is module.up_embed.weight:
                self._add(name, args[0])
        elif called == "__getitem__" and args[0].ndim == 3 and _is_scalar(args[1]):
            self._expert = int(args[1])
        elif called == "index_add_":
            _, _, tokens, states = args
            tokens = tokens[(states != 0).any(dim=-1)]  # a pair with weight zero contributes nothing
            self.pairs[_block(name)].append((tokens, torch.full_like(tokens, self._expert)))

    def _add(self, block: str, indices_Tk: Tensor) -> None:
        tokens = torch.arange(len(indices_Tk)).repeat_interleave(indices_Tk.shape[1])
        self.pairs[block].append((tokens, indices_Tk.flatten()))

    def counts(self, sites: tuple[RouterSite, ...], mask_T: Tensor) -> Counts:
        experts = {_block(site.module_name): site.num_experts for site in sites}
        return {
            block: sum(torch.bincount(e[mask_T[t]], minlength=experts[block]) for t, e in pairs).tolist()
            for block, pairs in self.pairs.items()
        }


def _is_scalar(index: Any) -> bool:
    return isinstance(index, int) or (isinstance(index, Tensor) and index.numel() == 1)


class _Tap:
    """Counts what the sites report, leaving out padded tokens."""

    def __init__(self, sites: tuple[RouterSite, ...]) -> None:
        self.bins = {_block(s.module_name): torch.zeros(s.num_experts + 1, dtype=torch.long) for s in sites}
        self.fired: Counter[str] = Counter()
        self.mask_T = torch.ones(BATCH * SEQUENCE, dtype=torch.bool)

    def __call__(self, site: RouterSite, indices_Tk: Tensor | None) -> None:
        assert indices_Tk is not None, f"{site.module_name} could not be read"
        assert indices_Tk.shape == (len(self.mask_T), site.top_k)
        block = _block(site.module_name)
        self.bins[block] += torch.bincount(indices_Tk[self.mask_T].flatten(), minlength=site.num_experts + 1)
        self.fired[block] += 1

    def counts(self) -> Counts:
        return {block: bins[:-1].tolist() for block, bins in self.bins.items() if self.fired[block]}


@contextmanager
def _tapped(search: RouterSearch) -> Iterator[_Tap]:
    tap = _Tap(search.sites)
    with ExitStack() as stack:
        for site in search.sites:
            stack.callback(register(site, tap).remove)
        yield tap


class _Case:
    """A model, its oracle and one batch."""

    def __init__(self, name: str) -> None:
        self.name, self.model = name, moe_zoo.build(name)
        self.truth, self.search = _Truth(self.model), find_routers(self.model)

    def forward(self, seed: int = 0, mask: Tensor | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(8, moe_zoo.VOCAB, (BATCH, SEQUENCE), generator=generator)
        mask = torch.ones_like(ids) if mask is None else mask
        inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if self.model.config.is_encoder_decoder:
            inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        return self.model(**inputs).logits

    def expected(self, mask: Tensor | None = None) -> Counts:
        mask_T = torch.ones(BATCH * SEQUENCE, dtype=torch.bool) if mask is None else mask.bool().flatten()
        counts = self.truth.counts(self.search.sites, mask_T)
        self.truth.pairs.clear()
        return counts


@pytest.fixture(scope="module", params=TESTED)
def case(request: pytest.FixtureRequest) -> Iterator[_Case]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are far too small to share between threads
    yield _Case(request.param)
    torch.set_num_threads(threads)


def test_every_router_is_found(case: _Case) -> None:
    assert case.search.sites and case.search.missed is None
    labels = [site.layer for site in case.search.sites]
    assert len(set(labels)) == len(labels)


def test_plain(case: _Case) -> None:
    with _tapped(case.search) as tap, case.truth, torch.no_grad():
        case.forward()
    expected = case.expected()
    assert expected and tap.counts() == expected
    top_k = {_block(site.module_name): site.top_k or 0 for site in case.search.sites}
    assert {b: int(tap.bins[b].sum()) for b in expected} == {b: BATCH * SEQUENCE * top_k[b] for b in expected}


def test_padding(case: _Case) -> None:
    mask = torch.ones(BATCH, SEQUENCE, dtype=torch.long)
    mask[0, :2] = mask[1, -3:] = 0
    with _tapped(case.search) as tap, case.truth, torch.no_grad():
        tap.mask_T = mask.bool().flatten()
        case.forward(mask=mask)
    assert tap.counts() == case.expected(mask)


def test_two_micro_batches(case: _Case) -> None:
    with _tapped(case.search) as tap:
        for seed in (1, 2):
            with case.truth:
                logits = case.forward(seed)
            logits.float().square().mean().backward()
    case.model.zero_grad()
    assert tap.counts() == case.expected()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_counts_once(case: _Case, use_reentrant: bool) -> None:
    if case.name in NO_CHECKPOINTING:
        assert not case.model.supports_gradient_checkpointing
        pytest.skip("the class has no activation checkpointing")
    forwards: Counter[str] = Counter()
    case.model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    with _tapped(case.search) as tap, ExitStack() as stack:
        for site in case.search.sites:
            hook = _count_into(forwards, _block(site.module_name))
            # A pre-hook: the non-reentrant recomputation stops inside the last module whose tensors are needed.
            stack.callback(site.module.register_forward_pre_hook(hook).remove)
        with case.truth:
            logits = case.forward()
        logits.float().square().mean().backward()
    case.model.activation_checkpointing_disable()
    case.model.zero_grad()
    assert tap.counts() == case.expected()
    assert forwards == {block: 2 * fired for block, fired in tap.fired.items()}, "nothing was recomputed"


def _count_into(counter: Counter[str], key: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        counter[key] += 1

    return hook


# ---- the zoo itself --------------------------------------------------------------------------------------------


def test_no_moe_class_is_left_out() -> None:
    assert set(moe_zoo.UNTESTED) <= set(moe_zoo.moe_classes()), "a reason for a class that is not there"
    assert len(TESTED) >= 50
    assert set(filter(moe_zoo.mentions_experts, moe_zoo.language_models())) <= set(moe_zoo.moe_classes())


def test_dense_models_have_no_routers() -> None:
    for name, dense in (
        ("DogeForCausalLM", {"is_moe": False}),
        ("Gemma4ForCausalLM", {"enable_moe_block": False}),
    ):
        assert find_routers(moe_zoo.build(name, **dense)) == RouterSearch((), None)
    assert find_routers(nn.Linear(2, 2)) == RouterSearch((), None)


def test_wrappers_leave_no_trace_in_the_names() -> None:
    plain, wrapped = (moe_zoo.build("MixtralForCausalLM") for _ in range(2))
    wrapped.model.layers[0] = checkpoint_wrapper(wrapped.model.layers[0])
    wrapped.model.layers[1].mlp.experts = checkpoint_wrapper(wrapped.model.layers[1].mlp.experts)
    root = nn.Module()
    root.module = wrapped  # as in DistributedDataParallel
    found, expected = find_routers(root), find_routers(plain)
    assert [(s.layer, s.module_name, s.how) for s in found.sites] == [
        (s.layer, s.module_name, s.how) for s in expected.sites
    ]
    assert found.missed is None


# ---- tokens that no expert computes ----------------------------------------------------------------------------


def test_tokens_beyond_the_capacity_are_no_expert() -> None:
    case = _Case("SwitchTransformersForConditionalGeneration")
    for module in case.model.modules():
        if hasattr(module, "expert_capacity"):
            module.expert_capacity = 1
    _assert_some_dropped(case)


def test_skipped_tokens_are_no_expert() -> None:
    case = _Case("ZayaForCausalLM")
    for module in case.model.modules():
        if hasattr(module, "balancing_biases"):
            module.balancing_biases.zero_()
            nn.init.normal_(module.router_mlp.out_proj.weight)
    _assert_some_dropped(case)


def _assert_some_dropped(case: _Case) -> None:
    with _tapped(case.search) as tap, case.truth, torch.no_grad():
        case.forward()
    assert tap.counts() == case.expected()
    assert sum(int(bins[-1]) for bins in tap.bins.values()) > 0


# ---- models that are not from transformers ---------------------------------------------------------------------


class _HomeRouter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 4)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits_TE = self.project(x_TD)
        weights_Tk, indices_Tk = logits_TE.softmax(-1).topk(2)
        return logits_TE, weights_Tk, indices_Tk


class _HomeBlock(nn.Module):
    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.num_experts = 4
        self.router = router
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x_TD: Tensor) -> Tensor:
        routed = self.router(x_TD)
        gates_TE = torch.zeros(len(x_TD), 4)
        if isinstance(routed, tuple):
            gates_TE = gates_TE.scatter(1, routed[2], routed[1])
        return torch.stack([gates_TE[:, e, None] * self.experts[e](x_TD) for e in range(4)]).sum(0)


def test_a_home_made_router_is_found_by_its_shape() -> None:
    model = nn.Sequential(_HomeBlock(_HomeRouter()), _HomeBlock(_HomeRouter()))
    search = find_routers(model)
    assert [(s.layer, s.module_name, s.num_experts, s.how) for s in search.sites] == [
        ("0", "0.router", 4, "shape"),
        ("1", "1.router", 4, "shape"),
    ]
    assert search.missed is None
    x_TD, seen = torch.randn(5, 8), []
    untapped = model(x_TD)
    handle = register(search.sites[0], lambda site, indices_Tk: seen.append(indices_Tk))
    assert torch.equal(model(x_TD), untapped)
    assert torch.equal(seen[0], model[0].router(x_TD)[2])
    handle.remove()
    model(x_TD)
    assert len(seen) == 2, "once for the model, once for the router that the test called"


def test_a_plain_linear_gate_is_reported_as_missed() -> None:
    search = find_routers(nn.Sequential(_HomeBlock(nn.Linear(8, 4)), _HomeBlock(_HomeRouter())))
    assert [site.module_name for site in search.sites] == ["1.router"]
    assert search.missed == "No router could be read in 1 block(s) with experts: 0."


def test_a_config_that_counts_experts_is_reported_as_missed() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    model.config = {"text_config": {"num_local_experts": 16}}  # type: ignore[assignment]
    assert find_routers(model).missed == "The config of Sequential counts 16 experts, but no router was found in it."


def test_a_router_without_indices_says_so_when_it_runs() -> None:
    class LogitsRouter(_HomeRouter):
        def forward(self, x_TD: Tensor) -> Any:
            return self.project(x_TD)

    model, seen = nn.Sequential(_HomeBlock(LogitsRouter())), []
    register(find_routers(model).sites[0], lambda site, indices_Tk: seen.append(indices_Tk))
    model(torch.randn(5, 8))
    assert seen == [None]
