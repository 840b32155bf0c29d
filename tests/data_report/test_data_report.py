"""The report against oracles: the tokenizer itself, a linear program, counts that were planted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from checks.data_report.report import make
from checks.data_report.restore import weights_for
from checks.data_report.sample import share
from checks.data_report.vocabulary import Vocabulary
from checks.scaling.repetition import fresh_worth
from trainvitals.card import RunCard
from trainvitals.cli import cli
from trainvitals.spelling import SCRIPTS
from trainvitals.store import Run, RunWriter, open_run

TEXT = "The naïve façade, ∂x/∂t = 0; def f(x): return x\n\tпривет мир 你好 世界 🙂 " * 40


def written(where: Path, tokens: Sequence[str] = (), windows: Sequence[Sequence[Sequence[int]]] = (),
            plan: Mapping[str, float] | None = None, fed: Sequence[Sequence[int]] = (),
            unique: Mapping[str, int] | None = None, switch: Mapping[str, Any] | None = None) -> Run:
    """A run of domains a, b, ... with these token counts [windows, D, K] and tokens by domain [rows, D]."""
    writer = RunWriter(where, when_full="wait")
    writer.write_card(RunCard(domains=dict(plan or {"a": 1.0}), domain_tokens=dict(unique or {})))
    if windows:
        names = [chr(ord("a") + d) for d in range(len(windows[0]))]
        frame = writer.frame("tokens", ["tokens/counts"], {"domain": names, "token": list(tokens)})
        for row, counts in enumerate(windows, 1):
            frame.append(10 * row, {"tokens/counts": [list(c) for c in counts]})
    if fed:
        data = writer.frame("data", ["data/domain_tokens"], {"domain": [*(plan or {"a": 1.0}), "unattributed"]})
        for step, row in enumerate(fed, 1):
            data.append(step, {"data/domain_tokens": [*row, 0]})
    if switch is not None:
        writer.event("stage_switch", **switch)
    writer.close()
    return open_run(where)


def test_tokens_are_spelled_as_their_tokenizer_decodes_them() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([TEXT], tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False))
    size = tokenizer.get_vocab_size()
    labels = ["0", *(f"{i} {tokenizer.id_to_token(i)}" for i in range(1, size))]
    vocabulary = Vocabulary(labels)
    assert not vocabulary.known[0] and vocabulary.known[1:].all()
    for i in range(1, size):
        decoded = tokenizer.decode([i], skip_special_tokens=False)
        if "\ufffd" not in decoded:
            assert vocabulary.text(i) == decoded
    ids = tokenizer.encode(TEXT).ids
    counts = np.bincount(ids, minlength=size)
    assert (counts @ vocabulary.bytes).sum() == len(TEXT.encode())
    assert [vocabulary.text(i).strip() for i in vocabulary.spelling("def")] == ["def"]
    assert vocabulary.words is not None and vocabulary.spelling("absent") == []


@pytest.mark.parametrize(("spelled", "text", "begins"), [("▁the", " the", True), ("<0xE2>", "<0xE2>", False)])
def test_sentencepiece_marks(spelled: str, text: str, begins: bool) -> None:
    vocabulary = Vocabulary(["0", "1 ▁a", f"2 {spelled}"])
    assert vocabulary.text(2) == text and vocabulary.words is not None and vocabulary.words[1][2] == begins


def test_scripts_move_by_what_was_planted(tmp_path: Path) -> None:
    """Cyrillic tokens go from 12 to 19 % of one domain and stay in the other."""
    tokens = ["0", "1 ▁the", "2 ▁мир", "3 ▁of", "4 и", "5 ▁never"]
    rng = np.random.default_rng(0)
    before, after = [0.01, 0.5, 0.06, 0.37, 0.06, 0.0], [0.01, 0.45, 0.09, 0.35, 0.10, 0.0]
    windows = [[rng.multinomial(50_000, before).tolist(), rng.multinomial(50_000, before if w < 6 else after).tolist()]
               for w in range(12)]
    report = make(written(tmp_path, tokens, windows), words=["мир", "nowhere"])
    assert report.scripts is not None and report.tokenizer is not None and report.watched is not None
    assert report.drift is not None
    moved = {(s.domain, s.script): s for s in report.scripts}
    sizes = {"1": (3, 1), "2": (6, 1), "3": (2, 1), "4": (2, 0)}  # bytes of letters, and of the space before them
    for name, shares in (("a", before), ("b", after)):
        letters = [sizes[str(i)][0] * shares[i] for i in range(1, 5)]
        expected = (letters[1] + letters[3]) / (sum(letters) + sum(sizes[str(i)][1] * shares[i] for i in range(1, 5)))
        assert moved[name, "cyrillic"].now.value == pytest.approx(expected, rel=0.02)
    now = moved["b", "cyrillic"]
    assert now.before.high is not None and now.now.low is not None and now.before.high < now.now.low
    unmoved = moved["a", "cyrillic"]
    assert unmoved.before.high is not None and unmoved.now.low is not None and unmoved.now.low < unmoved.before.high
    drift = {d.domain: d for d in report.drift}
    assert not drift["a"].moved and {m.text for m in drift["b"].moved} >= {"и", " мир"}
    assert report.tokenizer["never_used"] == 1 and "watched nowhere" in report.unknown
    watched = {w.domain: w for w in report.watched}
    assert watched["b"].now.value == pytest.approx(0.09, rel=0.03) and watched["b"].tokens == (" мир",)
    fit = report.tokenizer["domains"][0]
    assert fit.unspelled == pytest.approx(0.01, rel=0.1) and fit.by_script["cyrillic"] < fit.by_script["latin"] * 2


def test_intervals_of_shares_hold_what_they_promise_where_documents_clump() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        whole = rng.integers(800, 1200, 5).astype(float)
        part = np.array([rng.binomial(int(n), rng.beta(20, 80)) for n in whole]).astype(float)
        found = share(part, whole)
        assert found.low is not None and found.high is not None
        held += found.low <= 0.2 <= found.high
    print(f"95 % intervals held {held} of 400 times")
    assert held >= 368


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1e6)), min_size=2, max_size=6), st.floats(1e3, 1e7))
def test_weights_are_those_of_a_linear_program(domains: list[tuple[float, float]], over: float) -> None:
    plan = np.array([p for p, _ in domains]) / sum(p for p, _ in domains)
    fed = np.array([t for _, t in domains])
    weights, distance = weights_for(plan, fed, over)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    total, n = fed.sum() + over, len(plan)
    # minimise sum(e) with e >= |(fed + over * w) / total - plan|, sum(w) = 1
    eye = np.eye(n)
    above = np.hstack([over / total * eye, -eye])
    below = np.hstack([-over / total * eye, -eye])
    best = linprog(np.r_[np.zeros(n), np.ones(n)], A_ub=np.vstack([above, below]),
                   b_ub=np.r_[plan - fed / total, fed / total - plan], A_eq=[[1] * n + [0] * n], b_eq=[1])
    assert distance == pytest.approx(best.fun / 2, abs=1e-7)


def test_what_the_weights_cost_in_repeats(tmp_path: Path) -> None:
    run = written(tmp_path, plan={"web": 0.5, "math": 0.5}, fed=[[900, 100]] * 10, unique={"math": 1_000})
    report = make(run, over=8_000)
    assert report.plan is not None and report.plan.off_now == pytest.approx(0.4)
    web, maths = report.plan.domains
    assert web.weight == pytest.approx(0, abs=1e-12) and maths.weight == pytest.approx(1) and report.plan.needs == 8_000
    assert maths.epochs_now == 1 and maths.epochs_then == 9 and web.epochs_then is None
    assert maths.worth == pytest.approx((fresh_worth(9) - fresh_worth(1)) / 8)
    short = make(run, over=4_000).plan
    assert short is not None and short.off_then > 0.05


def test_the_plan_of_the_stage_that_runs_is_the_one_restored(tmp_path: Path) -> None:
    plan, fed = {"web": 0.5, "math": 0.5}, [[500, 500]] * 10 + [[700, 300]] * 10
    run = written(tmp_path / "given", plan=plan, fed=fed, switch={"step": 10, "domains": {"web": 0.7, "math": 0.3}})
    restored = make(run).plan
    assert restored is not None and restored.off_now == pytest.approx(0) and restored.since == 11
    run = written(tmp_path / "none", plan=plan, fed=fed, switch={"step": 10})
    assert make(run).plan is None and "stage switch" in make(run).unknown["plan"]


def test_command(tmp_path: Path) -> None:
    windows = [[[5, 50, 20]]] * 6
    written(tmp_path / "run", ["0", "1 ▁the", "2 \x1b[31m"], windows)
    done = CliRunner().invoke(cli, ["data", str(tmp_path / "run"), "--watch", "the", "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["watched"][0]["now"]["value"] == pytest.approx(50 / 75)
    done = CliRunner().invoke(cli, ["data", str(tmp_path / "run")])
    assert done.exit_code == 0 and "\x1b" not in done.stdout and "Tokenizer" in done.stdout
    for bad in (["--over", "0"], ["--over", "nan"], ["--watch", " "]):
        assert CliRunner().invoke(cli, ["data", str(tmp_path / "run"), *bad]).exit_code == 1
    written(tmp_path / "bare", plan={})
    done = CliRunner().invoke(cli, ["data", str(tmp_path / "bare")])
    assert done.exit_code == 3 and "Attach with" in done.stdout
    assert len(SCRIPTS) == 16
