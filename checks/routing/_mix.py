"""What the domain mix explains of expert loads: what each domain's tokens ask for, learned from the windows before.

A layer's load at a window is a sum over domains, load = sum_d share_d * P_d, where P_d is where the tokens of domain d
go. P is learned by recursive least squares (https://en.wikipedia.org/wiki/Recursive_least_squares_filter) under the
prior that domains route alike; rows of `router/domain_tokens` are observations of a single domain, and windows, whose
mixes scatter by the documents that they hold, of a sum. What is known of a domain fades with the tokens *of that
domain* that come later, so a domain that is no longer fed is remembered.

Where the mix has left the usual one, a layer learns only while it is no less even than the usual mix would leave it: a
collapse there must not teach the model that the new mix asks for it.

Legend: w windows, D domains, L layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from checks.reading import remember
from checks.robust import Floats
from checks.routing._domains import Mix, distance, loads_by_domain, mix_of, one_domain
from checks.routing._loads import TOKENS_PER_EXPERT, Loads, effective_number, loads

if TYPE_CHECKING:
    from trainvitals.store import Run

Table = NDArray[np.float32]

VARIETY = 1.0
"""Prior variance of a domain's load about the common one, relative to the load: OLMoE's CV is 0.3-0.5 on mixed text and
up to 1.35 on a single domain."""
MOST_VARIETY = 1e4
"""In variances of a window: loads without any noise are of a simulation, and would make the prior nothing."""
COMMON = 10.0
"""How much wider the prior of what domains have in common is: it is nearly free."""
HALF_LIFE = 16.0
"""Windows' worth of a domain's own tokens after which what was known of it counts half."""
HALF_LIFE_BY_DOMAIN = 4.0
"""The same where the tokens were counted by domain: they say more, so less memory is needed."""
NOISE_WINDOWS = 64
"""Windows over which the noise of a load is known."""
DOUBT = 2.0
"""Standard deviations of a prediction within which the mix may ask for more, or for nothing."""
FAR = 0.2
"""Total variation distance from which on a mix is not the usual one."""
AS_EVEN = 0.1
"""How much more collapsed than at the usual mix a layer may be and still teach what another mix asks for."""
UNSEEN = 0.25
"""Part of the prior variance that is left, from which on a mix is one that was never seen: the prediction's standard
deviation is then half of what it is without any row."""
MOST_EXPLAINED = 0.9
"""Of the degree. What is left is judged in units of itself, and must not be nothing."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What the mix of each window asks of the experts, by what was known before it."""

    mix: Mix
    expected: Table
    """[w, L, E] load ratio."""
    doubt: Table
    """[w, L, E] two standard deviations of it, as far as the mix was seen."""
    at_usual: Table
    """[w, L, E] the ratio that the usual mix asks for."""
    concentrated: Floats
    """[w, L] degree of collapse that the mix explains: the expected one less that at the usual mix."""
    unseen: Floats
    """[w, L] 0 for a mix that is known, 1 for domains that were never fed."""

    def beyond(self, degree: Floats) -> Floats:
        """[w, L] how collapsed layers are within the experts that their mix asks for: 0 as expected, 1 wholly.

        (effective experts - k) over (those that the mix leaves - k), from 1.
        """
        part: Floats = (degree - self.concentrated) / (1 - self.concentrated)
        return np.clip(part, 0.0, 1.0)

    def standard(self, ratio: Floats) -> Floats:
        """[w, L, E] the ratio at the usual mix, and what differs from the expected one beyond doubt."""
        surprise = ratio - self.expected
        beyond: Floats = self.at_usual + np.sign(surprise) * np.maximum(np.abs(surprise) - self.doubt, 0.0)
        return beyond


@dataclass(frozen=True, slots=True)
class Account:
    """What explains loads in a run, and what is missing where nothing can."""

    mix: Mix | None
    explained: Explained | None
    missing: str
    """Why the mix explains nothing, as a sentence; empty where it can."""


def explain(run: Run) -> Account:
    """What the mix says about the loads of a run that has them."""
    return remember(run, "loads explained", lambda: _explain(run))


def _explain(run: Run) -> Account:
    found = loads(run)
    mix = mix_of(run, found) if found is not None else None
    if found is None or mix is None:
        return Account(None, None, "The domain mix is not recorded, and text of one domain moves the loads of a "
                       "healthy router, too.")  # fmt: skip
    if one_domain(mix):
        return Account(mix, None, "The record knows one domain only: what changed within it does not show, and text of "
                      "one kind moves the loads of a healthy router, too.")  # fmt: skip
    return Account(mix, _learn(run, found, mix), "")


def _learn(run: Run, found: Loads, mix: Mix) -> Explained:
    learner = Learner(found, mix)
    rows = loads_by_domain(run, found, mix)
    row = next(rows, None)
    for w, first in enumerate(found.first):
        # A row by domain counts the steps up to its own.
        while row is not None and row[0] < first:
            learner.by_domain(row[1])
            row = next(rows, None)
        learner.window(w)
    return learner.explained


class Learner:
    """Where each domain's tokens go, by layer, and how well that is known."""

    def __init__(self, found: Loads, mix: Mix) -> None:
        windows, layers, experts = found.tokens.shape
        domains = len(mix.labels)
        self.loads, self.mix, self.degree = found, mix, found.degree
        self.asks = np.full((layers, domains, experts), 1 / experts)
        self.prior = np.linalg.inv(np.eye(domains) + COMMON)
        self.known = np.zeros((layers, domains, domains))
        """What rows said of the domains: their part of the inverse covariance [L, D, D], in units of window noise."""
        self.usual = np.full((layers, domains), 1 / domains)
        self.count = np.zeros(layers)
        self.noise = np.full((layers, experts), 1.0 / (TOKENS_PER_EXPERT * experts**2))
        """Variance of a load's share in a window, beside what the mix does."""
        self.may_learn = np.ones(layers, bool)
        shape = (windows, layers, experts)
        fair = np.ones(shape, np.float32)
        self.explained = Explained(mix, fair, 0 * fair, fair.copy(), np.zeros(shape[:2]), np.ones(shape[:2]))

    def window(self, w: int) -> None:
        """Say what is expected of a window, then learn from it."""
        s = self.mix.shares[w]
        if not np.isfinite(s[0]):
            return
        known, variety = self._faded(s), self._variety()
        with_prior = known + self.prior / variety[:, None, None]
        direction = np.linalg.solve(with_prior, np.broadcast_to(s, self.usual.shape)[..., None])[..., 0]
        unknown = direction @ s
        told = np.einsum("d,lde->le", s, self.asks)
        expected, usual = _shares(told), _shares(np.einsum("ld,lde->le", self.usual, self.asks))
        at_usual = self.loads.degree_of(effective_number(usual))
        e, experts = self.explained, len(self.loads.experts)
        e.expected[w], e.at_usual[w] = experts * expected, experts * usual
        e.unseen[w] = np.clip(unknown / variety, 0.0, 1.0)
        e.doubt[w] = DOUBT * experts * np.sqrt(np.minimum(unknown, UNSEEN * variety)[:, None] * self.noise)
        # The prior shrinks what domains ask for beyond the common load, and a degree goes with its square.
        rise = self.loads.degree_of(effective_number(expected)) - at_usual
        rise = np.where(rise > 0, rise / (1 - np.minimum(e.unseen[w], UNSEEN)) ** 2, rise)
        e.concentrated[w] = np.clip(rise, -MOST_EXPLAINED, MOST_EXPLAINED)
        tokens = self.loads.tokens[w]
        total = tokens.sum(axis=-1)
        near = (distance(s, self.usual) <= FAR) | (self.count == 0)
        self.may_learn = (total > 0) & (near | (self.degree[w] <= at_usual + AS_EVEN))
        self._update(s, known, direction, unknown, tokens / np.maximum(total, 1)[:, None] - told)

    def by_domain(self, tokens: Floats) -> None:
        """Learn from the tokens [D, L, E] that each domain sent to each expert."""
        total = tokens.sum(axis=2).T  # [L, D]
        per_window = max(float(np.median(self.loads.tokens[0].sum(axis=-1))), 1.0)
        weight = np.where(self.may_learn[:, None], total / per_window, 0.0)
        fade = 0.5 ** (weight / HALF_LIFE_BY_DOMAIN / 2)
        self.known *= fade[:, :, None] * fade[:, None, :]
        with_prior = self.known + self.prior / self._variety()[:, None, None]
        variance = np.diagonal(np.linalg.inv(with_prior), axis1=1, axis2=2)
        gain = weight * variance / (1 + weight * variance)
        seen = tokens.transpose(1, 0, 2) / np.maximum(total, 1.0)[..., None]
        self.asks += gain[..., None] * (seen - self.asks)
        i = np.arange(weight.shape[1])
        self.known[:, i, i] += weight

    def _variety(self) -> Floats:
        """[L] prior variance of a domain's load, in units of a window's noise."""
        usual = _shares(np.einsum("ld,lde->le", self.usual, self.asks))
        variety: Floats = VARIETY * (usual**2).sum(axis=-1) / np.maximum(self.noise.sum(axis=-1), 1e-12)
        return np.minimum(variety, MOST_VARIETY)

    def _faded(self, s: Floats) -> Floats:
        fade = 0.5 ** (s / HALF_LIFE / 2)
        return self.known * np.outer(fade, fade)

    def _update(self, s: Floats, known: Floats, direction: Floats, unknown: Floats, surprise: Floats) -> None:
        learn, gain = self.may_learn, direction / (1 + unknown)[:, None]
        weight = learn[:, None] / np.minimum(self.count + 2, NOISE_WINDOWS)[:, None]
        self.noise += weight * (surprise**2 / (1 + unknown)[:, None] - self.noise)
        self.asks[learn] += gain[learn][:, :, None] * surprise[learn][:, None, :]
        self.known[learn] = known[learn] + np.outer(s, s)
        self.count[learn] += 1
        self.usual[learn] += (s - self.usual[learn]) / self.count[learn][:, None]


def _shares(told: Floats) -> Floats:
    positive = np.maximum(told, 0.0)
    shares: Floats = positive / np.maximum(positive.sum(axis=-1, keepdims=True), 1e-12)
    return shares
