"""Healthy routers whose loads move, and faults, as kinds: each makes one run from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.checks.routing.routers import DOMAINS, Routers, only

Kind = Callable[[int], Routers]
SHAPES = ((8, 2), (64, 8), (128, 8), (64, 1), (8, 1), (64, 2))
NO_PLAN: dict[str, float | None] = dict.fromkeys(DOMAINS)
MIX_ONLY = frozenset({"mix", "top k"})
ONSET = 161
FAMILY: dict[str, object] = {}
"""What all kinds have in common; another family of routers is other settings in here."""


def shape(seed: int, **more: object) -> Routers:
    """Experts and choices per token by seed; odd seeds log no loads by domain."""
    experts, top_k = SHAPES[seed % len(SHAPES)]
    logs = MIX_ONLY if seed % 2 else frozenset({"mix", "by domain", "top k"})
    settings = {"seed": seed, "experts": experts, "top_k": top_k, "logs": logs, "layers": 1, **FAMILY, **more}
    return Routers(**settings)  # type: ignore[arg-type]


def steady(seed: int) -> Routers:
    return shape(seed)


def few_documents(seed: int) -> Routers:
    return shape(seed, documents=3, n=640)


def planned_switch(seed: int) -> Routers:
    made = shape(seed)
    made.mix[ONSET - 1 :] = only("code", 0.7)
    made.events = [("stage_switch", ONSET, {"domains": dict(zip(DOMAINS, only("code", 0.7).tolist(), strict=True))})]
    return made


def tuned_on_one_domain(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN)
    made.mix[ONSET - 1 :] = only(DOMAINS[seed % 4])
    return made


def mix_drifts_to_one_domain(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN)
    part = np.linspace(0, 1, made.n)[:, None]
    made.mix = (1 - part) * made.mix + part * only("math")
    return made


def one_domain_from_the_start(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN)
    made.mix[:] = only("code")
    return made


def domains_come_and_go(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN)
    for start in range(100, made.n, 100):
        made.mix[start : start + 50] = only(DOMAINS[start // 100 % 5], 0.9)
    return made


def specialises_slowly(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN)
    early, part = made.balanced(0.1), np.clip(np.arange(made.n) / 130, 0, 1)[:, None, None, None]
    made.asks = (1 - part) * early + part * made.asks
    made.mix[200:] = only("code")
    return made


def balances_anew(seed: int) -> Routers:
    """After the change to one domain the balancing loss spreads its tokens again."""
    made = tuned_on_one_domain(seed)
    made.becomes(made.balanced(0.2), ONSET + 20, 100)
    return made


def experts_choose(seed: int) -> Routers:
    return shape(seed, by_experts=True)


def shared_experts(seed: int) -> Routers:
    return shape(seed, shared=1 + seed % 2)


def more_tokens_a_row(seed: int) -> Routers:
    """Much larger batches: hardly any noise, so that nothing is learned from how the mix scatters."""
    return shape(seed, documents=400)


HEALTHY: dict[str, Kind] = {f.__name__: f for f in (
    steady, few_documents, planned_switch, tuned_on_one_domain, mix_drifts_to_one_domain, one_domain_from_the_start,
    domains_come_and_go, specialises_slowly, balances_anew, experts_choose, shared_experts, more_tokens_a_row,
)}  # fmt: skip


def one_domain_unrecorded(seed: int) -> Routers:
    made = shape(seed, logs=frozenset({"top k"}))
    made.mix[ONSET - 1 :] = only("code")
    return made


def domain_never_seen(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN)
    made.mix[:] = [0.5, 0.0, 0.2, 0.15, 0.15]
    made.mix[ONSET - 1 :] = only("code")
    return made


def mixed_exactly(seed: int) -> Routers:
    made = shape(seed, plan=NO_PLAN, exact=True, logs=MIX_ONLY)
    made.mix[ONSET - 1 :] = only("code")
    return made


UNKNOWABLE: dict[str, Kind] = {f.__name__: f for f in (one_domain_unrecorded, domain_never_seen, mixed_exactly)}
"""Healthy, and nothing in the record says so: a warning that names the mix, and no failure."""


def collapses(seed: int) -> Routers:
    made = shape(seed)
    made.becomes(made.few(made.top_k), ONSET)
    return made


def crowds(seed: int) -> Routers:
    """Onto twice the experts that a token takes, within 40 rows."""
    made = shape(seed)
    made.becomes(made.few(min(2 * made.top_k, made.experts // 4)), ONSET, 40)
    return made


def one_layer_collapses(seed: int) -> Routers:
    made = shape(seed, layers=3)
    made.becomes(made.few(made.top_k), ONSET, 30, slice(2, 3))
    return made


def collapses_as_the_mix_moves(seed: int) -> Routers:
    made = tuned_on_one_domain(seed)
    made.becomes(made.few(made.top_k), ONSET)
    return made


def collapses_on_one_domain(seed: int) -> Routers:
    made = tuned_on_one_domain(seed)
    made.becomes(made.few(made.top_k), ONSET + 40, 80)
    return made


def collapses_slowly(seed: int) -> Routers:
    made = shape(seed)
    made.becomes(made.few(made.top_k), ONSET - 80, 200)
    return made


def collapses_unrecorded(seed: int) -> Routers:
    made = shape(seed, logs=frozenset({"top k"}))
    made.becomes(made.few(made.top_k), ONSET, 30)
    return made


def balance_lost(seed: int) -> Routers:
    """The rich get richer: loads to the power of a rising exponent."""
    made = shape(seed)
    rise = np.clip((np.arange(made.n) - ONSET + 1) / 80, 0, 1)[:, None, None, None]
    scatter = np.exp(3.0 * made.rng.standard_normal((made.layers, 1, made.experts)))
    made.asks = made.possible(made.asks * scatter**rise)
    return made


COLLAPSES: dict[str, Kind] = {f.__name__: f for f in (
    collapses, crowds, one_layer_collapses, collapses_as_the_mix_moves, collapses_on_one_domain, collapses_slowly,
    collapses_unrecorded, balance_lost,
)}  # fmt: skip


def overloaded(seed: int) -> Routers:
    """One expert takes 70 % of the most it can."""
    made = shape(seed)
    share, shares = 0.7 / made.top_k, made.asks[0].copy()
    shares *= ((1 - share) / (1 - shares[..., 3]))[..., None]
    shares[..., 3] = share
    made.becomes(shares, ONSET, 20)
    return made


def overloaded_as_the_mix_moves(seed: int) -> Routers:
    made = overloaded(seed)
    made.mix[ONSET - 1 :] = only("code", 0.5)
    return made


def oscillates(seed: int) -> Routers:
    """Experts take turns of 32 rows at 70 % of the most they can take."""
    made = shape(seed)
    share, usual = 0.7 / made.top_k, made.asks[0]
    for turn, start in enumerate(range(ONSET - 1, made.n, 32)):
        shares, e = usual.copy(), turn % 2
        shares *= ((1 - share) / (1 - shares[..., e]))[..., None]
        shares[..., e] = share
        made.asks[start : start + 32] = shares
    return made


OVERLOADS: dict[str, Kind] = {f.__name__: f for f in (overloaded, overloaded_as_the_mix_moves, oscillates)}


def _dying(made: Routers, at: int, ramp: int) -> Routers:
    shares = made.asks[0].copy()
    shares[0, :, : max(made.experts // 8, 1)] = 0
    made.becomes(made.possible(shares), at, ramp)
    return made


def dies(seed: int) -> Routers:
    return _dying(shape(seed), ONSET, 1)


def dies_slowly(seed: int) -> Routers:
    return _dying(shape(seed), 60, 170)


def dies_as_the_mix_moves(seed: int) -> Routers:
    made = _dying(shape(seed), ONSET, 1)
    made.mix[ONSET - 1 :] = only("code", 0.6)
    return made


DEATHS: dict[str, Kind] = {f.__name__: f for f in (dies, dies_slowly, dies_as_the_mix_moves)}


def rests(seed: int) -> Routers:
    """An eighth of the experts of the first layer serve one domain alone, which is not fed for a while."""
    made = shape(seed, plan=NO_PLAN)
    own = slice(0, max(made.experts // 8, 1))
    asks = made.asks[0].copy()
    asks[0, :-1, own] = 0
    asks[0, -1] = 1e-3
    asks[0, -1, own] = 1
    made.asks[:] = made.possible(asks)
    made.mix[:, -1] = 0.25
    made.mix[ONSET - 1 : 270, -1] = 0
    return made


def dies_while_resting(seed: int) -> Routers:
    made = rests(seed)
    made.asks[ONSET - 1 :, 0, -1] = made.asks[ONSET - 1 :, 0, 0]
    return made



def off_its_plan(seed: int) -> Routers:
    """One domain alone is fed where a mix was planned; the router is sound."""
    made = shape(seed)
    made.mix[ONSET - 1 :] = only("code")
    return made
