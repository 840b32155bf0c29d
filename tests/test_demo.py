"""The demo: its data, its faults, and a run of a few steps that can be read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch

from collectors.demo.batches import Mixture, Rows, pack, split_rows
from collectors.demo.corpus import MAX_DOMAINS, Corpus, read_dataset
from collectors.demo.faults import FAULTS, Training
from collectors.demo.installation import SHARES, read_installation, split_docstrings
from collectors.demo.model import train_tokenizer
from collectors.demo.train import DemoConfig, DemoSummary, prepare, run_demo
from trainvitals.errors import UsageError
from trainvitals.store import open_run

WORDS = {"prose": "the ship sails on and the crew sings of home", "code": "def f ( x ) : return x + 1 if x else 0"}


def text(domain: str, words: int = 4000) -> str:
    rng = random.Random(domain)
    return "".join(rng.choice(WORDS[domain].split()) + rng.choice("  \n") for _ in range(words))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of prose, a folder of code (one file in JSON lines), and two files that hold no text."""
    data = tmp_path / "data"
    (data / "code" / "deep").mkdir(parents=True)
    (data / "prose.txt").write_text(text("prose"))
    (data / "code" / "a.py").write_text(text("code"))
    (data / "code" / "deep" / "b.jsonl").write_text(json.dumps({"text": text("code")}) + '\n{"no": 1}\nbroken\n')
    (data / "code" / "c.bin").write_bytes(b"\x00\x01" * 100)
    (data / "code" / "d.txt").write_bytes("é".encode("latin-1") * 100)
    return data


def config(data: Path, run: Path, fault: str = "none") -> DemoConfig:
    return DemoConfig(run=run, data=data, steps=6, fault=fault, batch_rows=4, context=32, eval_every=3)


def train(data: Path, run: Path, fault: str = "none") -> tuple[DemoSummary, list[float]]:
    losses: list[float] = []
    summary = run_demo(config(data, run, fault), lambda step, loss: losses.append(loss))
    return summary, losses


def test_a_demo_ends_with_a_run_that_can_be_read(folder: Path, tmp_path: Path) -> None:
    summary, losses = train(folder, tmp_path / "run", "poisoned_batch")
    run = open_run(tmp_path / "run")
    assert (run.status, run.last_step, summary.steps, len(losses)) == ("finished", 6, 6, 6)
    assert not run.problems()
    np.testing.assert_allclose(losses, run.array("loss/train").values, rtol=1e-5)
    assert list(run.card.domains.items()) == [("code", 0.5), ("prose", 0.5)]
    planned, used = run.array("lr/planned").values, run.array("lr/used").values
    np.testing.assert_allclose(used, planned, rtol=1e-6)
    np.testing.assert_array_equal(run.array("data/domain_tokens").values.sum(axis=1), 4 * 32)
    validation = run.array("loss/val_domain")
    assert validation.steps.tolist() == [3, 6]
    np.testing.assert_allclose(validation.values[-1, :2], list(summary.val_last.values()), rtol=1e-5)
    assert summary.skipped == (f"left out of {folder}: 2 x JSON line without a text field, 1 x binary file, "
                               "1 x file not in UTF-8")


def test_a_fault_changes_nothing_before_its_onset_and_is_not_written_down(folder: Path, tmp_path: Path) -> None:
    _, healthy = train(folder, tmp_path / "healthy")
    summary, faulty = train(folder, tmp_path / "other", "poisoned_batch")
    assert summary.onset == 3
    assert faulty[:2] == healthy[:2]
    assert faulty[2] > healthy[2] + 0.1
    written = b"".join(path.read_bytes() for path in (tmp_path / "other").rglob("*") if path.is_file())
    assert b"poison" not in written
    assert b"fault" not in written.replace(b"default", b"")


def test_interrupting_closes_the_run(folder: Path, tmp_path: Path) -> None:
    def interrupt(step: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    summary = run_demo(config(folder, tmp_path / "run"), interrupt)
    assert (summary.interrupted, summary.steps) == (True, 2)
    run = open_run(tmp_path / "run")
    assert (run.status, run.last_step) == ("finished", 2)


@pytest.mark.parametrize(("made", "says"), [
    (lambda p: None, "is not a folder"),
    (lambda p: p.mkdir(), "holds no readable text (it is empty)"),
    (lambda p: [p.mkdir(), (p / "x.bin").write_bytes(bytes(9))], "holds no readable text (1 x binary file)"),
    (lambda p: [p.mkdir(), *[(p / f"{i}.txt").write_text("a") for i in range(MAX_DOMAINS + 1)]], "holds 65 files"),
    (lambda p: [p.mkdir(), (p / "unattributed.txt").write_text("a")], "Rename it"),
    (lambda p: [p.mkdir(), (p / "short.txt").write_text("few words")], "'short' of"),
])
def test_a_folder_that_cannot_be_used_is_refused(made: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    made(tmp_path / "data")
    with pytest.raises(UsageError) as refusal:
        prepare(config(tmp_path / "data", tmp_path / "run"))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("arguments", "says"), [
    ({"fault": "gremlins"}, "Unknown fault 'gremlins'"),
    ({"steps": 0}, "--steps 0"),
    ({"data": "a", "dataset": "b"}, "exclude each other"),
    ({"dataset": "b"}, "--domain-column"),
])
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        DemoConfig(run="run", **arguments)  # type: ignore[arg-type]


def test_a_dataset_is_read_by_column(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    records = [{"body": text(domain, 20), "meta": {"source": domain}} for domain in ("prose", "code", "prose")]
    (tmp_path / "part.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    corpus = read_dataset(str(tmp_path), "meta.source", "body", 10_000)
    assert corpus.documents == {"prose": [text("prose", 20)] * 2, "code": [text("code", 20)]}
    assert corpus.shares == {"prose": 0.5, "code": 0.5}
    with pytest.raises(UsageError, match="no column 'language'. It has: body, meta"):
        read_dataset(str(tmp_path), "language", "body", 10_000)
    with pytest.raises(UsageError, match="cannot be loaded"):
        read_dataset(str(tmp_path / "absent"), "language", "body", 10_000)


def test_the_installation_holds_four_domains_or_more() -> None:
    corpus = read_installation(seed=0, max_chars=200_000)
    assert len(corpus.documents) >= 4
    assert set(corpus.documents) <= set(SHARES)
    assert sum(corpus.shares.values()) == pytest.approx(1)
    assert min(corpus.chars.values()) >= 100_000


def test_docstrings_leave_the_code() -> None:
    long = "Says much." * 20
    source = f'"""{long}"""\nimport os\n\ndef f():\n    "Short."\n    return os.name\n'
    assert split_docstrings(source) == ("import os\n\ndef f():\n    return os.name\n", [long])
    assert split_docstrings("a sentence:") == ("", [])


def test_packing_agrees_with_a_walk_over_the_tokens() -> None:
    documents = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14]]
    rows = pack(documents, end=0, context=4)
    assert rows.ids_NT.tolist() == [[5, 6, 7, 0], [8, 0, 9, 10], [11, 12, 13, 14]]
    assert rows.positions_NT.tolist() == [[0, 1, 2, 3], [0, 1, 0, 1], [0, 1, 2, 3]]


def test_no_document_is_on_both_sides() -> None:
    documents = {"prose": [f"document {i} says {i * i}\n" * 20 for i in range(40)]}
    corpus = Corpus("here", 10_000, documents, {"prose": 1.0})
    tokenizer = train_tokenizer(documents.values())
    train_rows, held_out = split_rows(corpus, tokenizer, 16, seed=0)
    numbers = [{line.split()[1] for row in rows["prose"].ids_NT for line in tokenizer.decode(row).split("\n")
                if line.startswith("document ") and len(line.split()) == 4} for rows in (train_rows, held_out)]
    assert numbers[0] and numbers[1] and not numbers[0] & numbers[1]


def test_the_mixture_draws_the_planned_shares_and_every_row_once_per_pass() -> None:
    rows = {"a": Rows(np.arange(20).reshape(10, 2), np.zeros((10, 2), int)),
            "b": Rows(np.arange(20, 30).reshape(5, 2), np.zeros((5, 2), int))}
    mixture = Mixture(rows, {"a": 0.7, "b": 0.3}, batch_rows=500, seed=3)
    batch = mixture.draw()
    domain = batch["domain"].numpy()
    assert abs((domain == 0).mean() - 0.7) < 0.08
    ids = batch["input_ids"].numpy()
    assert ((ids >= 20).all(axis=1) == (domain == 1)).all()
    first_pass = ids[domain == 0][:10]
    assert sorted(first_pass[:, 0]) == list(range(0, 20, 2))
    assert (Mixture(rows, {"a": 0.7, "b": 0.3}, 500, seed=3).draw()["input_ids"] == batch["input_ids"]).all()


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    data = tmp_path_factory.mktemp("demo")
    for domain in WORDS:
        (data / f"{domain}.txt").write_text(text(domain))
    return prepare(config(data, data / "run")).training


def loss(training: Training) -> float:
    with torch.no_grad():
        return float(training.model(**training.on_batch(training.mixture.draw())).loss)


def test_faults_change_the_training(training: Training) -> None:
    training.step_time_s = 0.01
    rate = training.scheduler.get_last_lr()[0]
    FAULTS["lr_jump"](training, 0)
    assert training.optimizer.param_groups[0]["lr"] == 8 * rate
    FAULTS["mix_shift"](training, 0)
    np.testing.assert_allclose(training.mixture.shares, [0.2, 0.8])
    FAULTS["router_collapse"](training, 0)
    assert training.model.balance_coef < 0
    FAULTS["slow_loader"](training, 0)
    assert np.isfinite(loss(training))
    plain = training.mixture.draw()
    FAULTS["poisoned_batch"](training, 2)
    assert not torch.equal(training.on_batch(plain)["input_ids"], plain["input_ids"])
    assert torch.equal(training.on_batch(plain)["domain"], plain["domain"])
    FAULTS["poisoned_batch"](training, 3)
    assert training.on_batch(plain) is plain
    before = training.model.model.layers[1].self_attn.o_proj.weight.detach().clone()
    FAULTS["exploding_layer"](training, 0)
    torch.testing.assert_close(training.model.model.layers[1].self_attn.o_proj.weight.detach(), 1000 * before)
    FAULTS["nan"](training, 0)
    assert not np.isfinite(loss(training))
