"""A bad table gets one clear sentence; a good one is understood whatever its columns are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from checks.scaling.chinchilla import fit_law
from checks.scaling.runs import run_table
from checks.scaling.table import ladder, parse_columns, read_ladder
from tests.scaling.ladders import TRUTH, simulated
from trainvitals.card import RunCard
from trainvitals.errors import UsageError
from trainvitals.store import RunWriter, liveness


def good() -> pd.DataFrame:
    runs = simulated(np.random.default_rng(0))
    return pd.DataFrame({"N": runs.n, "D": runs.d, "loss": runs.loss})


def one_size(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(N=1e9)


def put(column: str, row: int, value: object) -> object:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{column: [value if i == row else v for i, v in enumerate(frame[column])]})
    return change


BAD = {
    "missing column": (lambda f: f.drop(columns="loss"), "no column for loss. Name it with --columns loss=COLUMN"),
    "no D nor C": (lambda f: f.drop(columns="D"), r"no column for D \(or C\)"),
    "N in billions": (lambda f: f.assign(N=f.N / 1e9), "'N' of .* cannot be parameters: .* millions or billions"),
    "D in billions": (lambda f: f.assign(D=f.D / 1e9), "'D' of .* cannot be tokens"),
    "mixed N": (lambda f: f.assign(N=np.where(f.N > 1e9, f.N / 1e9, f.N)), "mixes units: it jumps from 3 to 5e\\+07"),
    "mixed D": (lambda f: f.assign(D=np.where(f.D > 1e11, f.D / 1e9, f.D)), "'D' of .* mixes units"),
    "C in GFLOP": (lambda f: f.assign(C=6 * f.N * f.D / 1e9 * 1.0), "is 1e-09 times 6 N D"),
    "one C off": (lambda f: put("C", 4, 1e15)(f.assign(C=6 * f.N * f.D)), "Line 6 of .* mixes units"),
    "three points": (lambda f: f.iloc[[0, 10, 20]], "has 3 runs, too few for the law's five constants"),
    "one size": (one_size, "has one model size"),
    "one token count": (lambda f: f.assign(D=1e10, loss=f.loss + f.index * 1e-6), "has one token count"),
    "negative loss": (put("loss", 3, -2.5), "Line 5 of .* has -2.5 in column 'loss'"),
    "zero": (put("N", 0, 0), "Line 2 of .* has 0 in column 'N'"),
    "NaN": (put("loss", 7, np.nan), "Line 9 of .* has no value in column 'loss'"),
    "infinity": (put("loss", 7, np.inf), "Line 9 of .* not a finite number"),
    "text": (put("N", 2, "7B"), "Line 4 of .* has '7B' in column 'N', .* 7e9 for 7B"),
    "perplexity": (lambda f: f.assign(loss=np.exp(f.loss * 1.5)), "look like perplexities"),
    "one perplexity": (put("loss", 1, 60.0), "Line 3 of .* has a loss of 60"),
    "duplicated rows": (lambda f: pd.concat([f, f.iloc[[4]]]), "Line 44 of .* repeats line 6"),
    "constant loss": (lambda f: f.assign(loss=3.0), "Every loss of"),
    "warm-up": (lambda f: f.assign(warmup_tokens=2 * f.D), "warm-up tokens"),
}


@pytest.mark.parametrize("change, said", BAD.values(), ids=BAD)
def test_bad_tables_are_refused_in_one_sentence(change, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "ladder.csv"
    change(good()).to_csv(path, index=False)
    with pytest.raises(UsageError, match=said) as error:
        read_ladder(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and len(text) < 330
    assert text.count(". ") <= 2, "what is wrong, and what to do"


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "is empty"),
        (b"N,D,loss\n", "header and no rows"),
        (b"N,D,loss\n,,\n\n", "header and no rows"),
        (b"N,D,loss\n" + b"1e9,1e10,3\n" * 10_001, "at most 10,000"),
        (b"a fit of ours\nN 1e9\n", "has one column"),
        (b"N,D,loss\n1,2,3\n1,2,3,4,5\n", "is not a CSV file"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe\x00\x00", "is not a CSV file|has one column"),
    ],
)
def test_other_files_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ladder.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_ladder(path)


def test_a_missing_file_or_column_or_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        read_ladder(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="There is no run in"):
        read_ladder(tmp_path)
    with pytest.raises(UsageError, match="no column 'size' for N. It has N, D, loss"):
        ladder(good(), {"N": "size"})
    with pytest.raises(UsageError, match="cannot use 'tokens'"):
        parse_columns("tokens")
    for twice in ("N=a,N=b", "N=a,D=a"):
        with pytest.raises(UsageError, match="twice"):
            parse_columns(twice)
    assert parse_columns("N=model size, loss=eval/c4, D=t") == {"N": "model size", "loss": "eval/c4", "D": "t"}


def test_columns_are_guessed_and_tokens_follow_from_compute() -> None:
    frame = good()
    renamed = frame.rename(columns={"N": "Model Size", "loss": "val_loss"})
    renamed["Training FLOP"] = 6 * frame.N * frame.D
    found = ladder(renamed.drop(columns="D"))
    assert found.columns == {"N": "Model Size", "C": "Training FLOP", "loss": "val_loss"}
    np.testing.assert_allclose(found.d, frame.D)
    both = ladder(renamed)  # C may count attention and embeddings: D stands
    np.testing.assert_array_equal(both.d, frame.D)
    warm = ladder(frame.assign(warmup_tokens=1e7))
    np.testing.assert_array_equal(warm.d, frame.D - 1e7)
    other = ladder(frame.assign(no_embed=frame.N * 0.8), {"N": "no_embed"})
    np.testing.assert_array_equal(other.n, frame.N * 0.8)


@pytest.mark.parametrize("blank", ["\n", "  \n", ",,\n"])
def test_messages_name_the_line_of_the_file(tmp_path: Path, blank: str) -> None:
    path = tmp_path / "ladder.csv"
    lines = put("N", 5, "7B")(good()).to_csv(index=False).splitlines(keepends=True)  # type: ignore[operator]
    path.write_text("".join([*lines[:3], blank, blank, *lines[3:]]))
    with pytest.raises(UsageError, match="Line 9 of .* has '7B'"):
        read_ladder(path)
    lines[6] = lines[2]
    path.write_text("".join([*lines[:3], blank, blank, *lines[3:]]))
    with pytest.raises(UsageError, match="Line 9 of .* repeats line 3"):
        read_ladder(path)


def test_unique_tokens_that_are_not_told_refuse_no_fit(tmp_path: Path) -> None:
    path = tmp_path / "ladder.csv"
    frame = good().assign(unique_tokens=lambda f: f.D / 2)
    put("unique_tokens", 3, np.nan)(frame).to_csv(path, index=False)  # type: ignore[operator]
    found = read_ladder(path)
    assert found.unique is not None and np.flatnonzero(np.isnan(found.unique)).tolist() == [3]
    assert len(fit_law(found.points()).law.to_json()) >= 5
    with pytest.raises(UsageError, match="'many' in column 'unique_tokens'"):
        ladder(put("unique_tokens", 3, "many")(frame))  # type: ignore[operator]


def test_runs_not_annealed_alike_are_left_out_by_name() -> None:
    frame = good().assign(run=[f"r{i}" for i in range(42)], anneal=0.1)
    frame.loc[40:, "anneal"] = [0.25, 0.4]
    found = ladder(frame)
    assert len(found) == 40 and len(found.refused) == 2
    assert found.refused[0] == "r40 is not annealed alike: anneal is 0.25, where the others have 0.1."
    rates = ladder(frame.drop(columns="anneal").assign(peak_lr=3e-4, final_lr=[3e-5] * 41 + [9e-5]))
    assert rates.refused == ("r41 is not annealed alike: lr_fraction is 0.3, where the others have 0.1.",)
    words = ladder(frame.assign(anneal=["cut"] * 3 + ["annealed"] * 39))
    assert [text.split()[0] for text in words.refused] == ["r0", "r1", "r2"]
    with pytest.raises(UsageError, match="after 3 that are not annealed alike"):
        ladder(frame.assign(anneal=["a", "b", "c"] + ["d"] * 39).iloc[:7])


def write_run(
    folder: Path, n: int, steps: int, tokens_per_step: int, last_rate: float, *, planned: int | None = None,
    closed: bool = True,
) -> None:
    writer = RunWriter(folder, when_full="wait")
    writer.write_card(RunCard(params_total=n, total_steps=planned))
    speed = writer.frame("throughput", ["throughput/tokens"])
    losses = writer.frame("loss", ["loss/sum", "loss/tokens"])
    rates = writer.frame("lr", ["lr/used"], labels={"group": ["0"]})
    for step in range(1, steps + 1):
        loss = float(TRUTH.loss(n, tokens_per_step * steps))
        speed.append(step, {"throughput/tokens": tokens_per_step})
        losses.append(step, {"loss/sum": loss * 100, "loss/tokens": 100})
        rates.append(step, {"lr/used": np.array([1.0 if step < steps else last_rate])})
    if closed:
        writer.close()
    else:
        writer.flush()


def test_run_folders_make_a_ladder(tmp_path: Path) -> None:
    for i, n in enumerate((50e6, 100e6, 200e6, 400e6, 800e6)):
        for j, multiplier in enumerate((10, 40)):
            write_run(tmp_path / f"run-{i}-{j}", int(n), 10, int(n * multiplier / 10), 0.1)
    write_run(tmp_path / "run-cut", int(9e8), 10, int(3e9), 0.5)
    found = read_ladder(tmp_path)
    assert len(found) == 10 and found.refused[0].startswith("run-cut is not annealed alike")
    np.testing.assert_allclose(found.loss, TRUTH.loss(found.n, found.d))
    np.testing.assert_allclose(np.sort(found.d / found.n), [10] * 5 + [40] * 5)
    assert fit_law(found.points()).law.alpha == pytest.approx(TRUTH.alpha, rel=0.01)


def test_runs_that_did_not_finish_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        write_run(tmp_path / f"run-{i}", int(1e8), 10, int(1e8), 0.1, planned=10)
    assert len(run_table(tmp_path)) == 6
    write_run(tmp_path / "unclosed", int(1e8), 10, int(1e8), 0.1, planned=10, closed=False)
    with pytest.raises(UsageError, match="unclosed is still training"):
        run_table(tmp_path)
    monkeypatch.setattr(liveness, "SILENT_SECONDS", -1.0)
    assert len(run_table(tmp_path)) == 7  # it took all of its steps
    write_run(tmp_path / "short", int(1e8), 10, int(1e8), 0.1, planned=1000)
    write_run(tmp_path / "silent", int(1e8), 10, int(1e8), 0.1, closed=False)
    with pytest.raises(UsageError, match="short stopped at step 10 of 1,000, .*silent was cut off at step 10. Let"):
        run_table(tmp_path)
