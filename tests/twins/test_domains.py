"""One domain that leaves the twin is found where the whole loss hides it, and healthy domains are not."""

from __future__ import annotations

import numpy as np

from checks import run_checks
from checks.twins.domains import domain_partings
from checks.twins.known import find_twins, note_twins
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run

DOMAINS = {"web": 0.5, "code": 0.2, "math": 0.1, "law": 0.1, "books": 0.1}
ROWS = 1_500


def write(path, seed, data, raised=None):
    """A run whose domains have noise of their data in common with others of its order; `raised`: domain, row, nat."""
    shared, own = np.random.default_rng(1_000 + data), np.random.default_rng(seed)
    steps = np.arange(1, ROWS + 1)
    course = 2 + 6 * (steps[:, None] + 20.0) ** -0.3 + np.linspace(0, 1, len(DOMAINS))
    tokens = shared.multinomial(4_000, list(DOMAINS.values()), size=ROWS)
    losses = course * np.exp(0.04 * shared.standard_normal((ROWS, len(DOMAINS)))
                             + 0.006 * own.standard_normal((ROWS, len(DOMAINS))))  # fmt: skip
    if raised:
        domain, row, nat = raised
        losses[row:, list(DOMAINS).index(domain)] += nat
    writer = RunWriter(path, when_full="wait")
    writer.write_card(RunCard(name=path.name, domains=dict(DOMAINS)))
    frame = writer.frame("loss", ["loss/sum", "loss/tokens", "loss/domain_sum", "loss/domain_tokens"],
                         {"domain": list(DOMAINS)})  # fmt: skip
    for step, n, y in zip(steps.tolist(), tokens, losses, strict=True):
        frame.append(step, {"loss/sum": float(n @ y), "loss/tokens": int(n.sum()), "loss/domain_sum": n * y,
                            "loss/domain_tokens": n})  # fmt: skip
    writer.close()
    return open_run(path)


def compared(run, twin):
    rows, (pair,) = find_twins([run, twin])
    assert pair.usable
    return domain_partings(run, [(rows[twin.path], pair)])


def test_a_domain_that_the_whole_loss_hides(tmp_path):
    run, twin = write(tmp_path / "run", 1, 0, ("math", 900, 0.06)), write(tmp_path / "twin", 2, 0)
    found, looked = compared(run, twin)
    assert looked == 5 and [d.domain for d in found] == ["math"]
    assert abs(found[0].parting.episode.onset - 900) <= 15
    note_twins([run, twin], find_twins([run, twin])[1])
    said = [f for f in run_checks(open_run(run.path)).findings if f.check == "loss.twin"]
    assert [f.level for f in said] == ["warn"]
    assert "`math`" in said[0].summary and said[0].evidence[0].label == "math"


def test_a_fault_of_the_whole_names_its_domains(tmp_path):
    run, twin = write(tmp_path / "run", 1, 0, ("web", 900, 0.3)), write(tmp_path / "twin", 2, 0)
    note_twins([run, twin], find_twins([run, twin])[1])
    (said,) = (f for f in run_checks(open_run(run.path)).findings if f.check == "loss.twin")
    assert "left its twin" in said.summary and "By domain: `web` +" in said.summary


def test_healthy_domains_stay(tmp_path):
    alarms = 0
    for i in range(8):
        found, looked = compared(write(tmp_path / f"a{i}", 2 * i, i), write(tmp_path / f"b{i}", 2 * i + 1, i))
        alarms += len(found)
        assert looked == 5
    print(f"{alarms} partings in {8 * 5 * ROWS:,} healthy rows of domains")
    assert alarms == 0
