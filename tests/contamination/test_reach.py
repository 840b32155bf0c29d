"""How much was searched of what was read: it is counted and said, and too little never passes."""

from __future__ import annotations

import gzip
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.contamination_layouts import FORMS, RAW, measure
from benchmarks.layouts import LAYOUTS
from checks.contamination import reach
from checks.contamination.audit import run_audit
from checks.contamination.command import EXIT_CODES, _told
from checks.contamination.plan import Request
from checks.contamination.readers.corpus import CorpusOptions, plan_slices
from tests.contamination.test_corpus import as_jsonl, read, write
from trainvitals.errors import UsageError

MARKUP = ("SIQA", "BBH")
"""Layouts whose short lines are parted by tags on a page, which the words of the text do not know yet."""


def quiet(what: str, total: int) -> Callable[[int], None]:
    return lambda more: None


@pytest.fixture(scope="module")
def words() -> Callable[[int], str]:
    rng = np.random.default_rng(3)
    known = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("l", "n", "r", "st", "x")]
    return lambda n: " ".join(rng.choice(known, n))


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory, words: Callable[[int], str]) -> Path:
    rows = [{"id": i, "question": words(25) + "?", "answer": words(3)} for i in range(12)]
    return write(tmp_path_factory.mktemp("exam") / "exam.jsonl", as_jsonl(rows))


def audit(exam: Path, out: Path, *corpus: Path, **options: Any) -> dict[str, Any]:
    request = Request(corpus=[str(path) for path in corpus], benchmark=[str(exam)], out=out, semantic="none",
                      options=CorpusOptions(**options))  # fmt: skip
    return run_audit(request, quiet).summary


def test_every_layout_is_found_by_itself_and_what_was_left_out_is_clean(tmp_path: Path) -> None:
    assert len(LAYOUTS) >= 25
    for found in measure(tmp_path, LAYOUTS, 4):
        assert found.contaminated[RAW] == found.expected == 3, found
        for form in FORMS:
            assert found.found[form] == 3, found
            if form != "HTML" or found.layout not in MARKUP:
                assert found.contaminated[form] == 3, found
        assert (found.left_out, found.false) == (1, 0), found


@pytest.mark.parametrize("column", ["sentence", "question_stem", "selftext", "Frage", "x.y", "id", "label"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_text_is_searched_whatever_its_column_is_called(
    exam: Path, tmp_path: Path, words: Callable[[int], str], column: str, ending: str
) -> None:
    questions = [json.loads(line)["question"] for line in exam.read_text().splitlines()]
    rows = [{"text": words(9), column: question} for question in questions]
    file = write(tmp_path / f"a.{ending}", as_jsonl(rows))
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    summary = audit(exam, tmp_path / "out", file)
    assert summary["benchmarks"][0]["verdicts"]["contaminated"] == 12
    assert summary["corpus"]["unsearched_bytes"] == 0


def test_strings_of_machines_are_counted_and_not_searched(tmp_path: Path) -> None:
    row = {
        "text": "some words", "id": "doc/1", "url": "https://example.org/a-b-c", "sha": "0123456789abcdef" * 4,
        "when": "2024-01-02T03:04:05Z", "uid": "123e4567-e89b-42d3-a456-426614174000", "day": "2024-01-02",
        "messages": [{"role": "user", "content": "more words"}], "n": 5,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row] * 3), tmp_path / "a.parquet")
    write(tmp_path / "a.jsonl", as_jsonl([row] * 3))
    write(tmp_path / "a.json", json.dumps([row] * 3).encode())
    for ending in ("jsonl", "json", "parquet"):
        got = read(tmp_path / f"a.{ending}")
        assert got.strings == ["some words\nmore words\n2024-01-02"] * 3
        assert got.no_text == {
            "id: ids and labels": 15, "url: ids and labels": 75, "sha: links, hashes and times": 192,
            "when: links, hashes and times": 60, "uid: links, hashes and times": 108,
            "messages.role: ids and labels": 12,
        }  # fmt: skip
        assert not got.unsearched


def test_bytes_in_a_table_are_text_where_they_are(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([b"hidden text", b"\x89PNG\r\n\x1a\n\0\0"]), "m": pa.array([[("k", "v w")], None],
                      pa.map_(pa.string(), pa.string()))})  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    got = read(tmp_path / "a.parquet")
    assert (got.strings, got.no_text) == (["hidden text\nv w\nk"], {"a: binary data": 10})


def test_keys_that_are_sentences_are_searched(tmp_path: Path) -> None:
    row = {"how many pears are in the box": "nine", "meta": {"who has seen the old harbour": 1}}
    assert read(write(tmp_path / "a.jsonl", as_jsonl([row]))).strings == [
        "how many pears are in the box\nnine\nwho has seen the old harbour"
    ]


@pytest.mark.parametrize(("share", "level"), [(0.38, "unknown"), (0.98, "pass"), (0.0, "unknown")])
def test_too_little_searched_can_never_pass(
    exam: Path, tmp_path: Path, words: Callable[[int], str], share: float, level: str
) -> None:
    rows = [{"text": "a " * round(50 * share), "notes": "b " * round(50 * (1 - share))} for _ in range(20)]
    rows = [{name: value for name, value in row.items() if value} for row in rows]
    summary = audit(exam, tmp_path / "out", write(tmp_path / "a.jsonl", as_jsonl(rows)), text_columns=("text",))
    decision, corpus = summary["decision"], summary["corpus"]
    assert decision["level"] == level
    assert (corpus["text_bytes"], corpus["unsearched_bytes"]) == (round(2000 * share), round(2000 * (1 - share)))
    verdicts = summary["benchmarks"][0]["verdicts"]
    if level == "unknown":
        assert f"only {100 * share:.0f}" in decision["sentence"].replace("0.0 %", "0 %")
        assert "notes: not named by --text-column" in decision["sentence"]
        assert verdicts["clean"] == 0 and verdicts["untestable"] == 12
        items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
        assert all("of the text bytes were searched" in item["rule"] for item in items)
    else:
        assert "1,960 of 2,000 bytes of text (98 %) searched in 1 shard, no gap" in decision["sentence"]
        assert verdicts["clean"] == 12
    assert EXIT_CODES[decision["level"]] == (3 if level == "unknown" else 0)
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("notes: not named by --text-column" in page) and decision["sentence"][:60] in page


def test_one_unsearched_shard_among_many_is_too_little() -> None:
    shards = [{"shard": f"s{i}", "documents": 9, "text_bytes": 10**6, "unsearched_bytes": 0} for i in range(50)]
    hidden = {"shard": "leak", "documents": 0, "text_bytes": 0, "unsearched_bytes": 2000, "unsearched": {"x": 2000}}
    corpus = {"text_bytes": 50 * 10**6, "unsearched_bytes": 2000, "shards": [*shards, hidden], "problems": []}
    assert reach.shortfall({**corpus, "shards": shards, "unsearched_bytes": 0}) == ""
    assert "0.0 % of the text bytes of leak" in reach.shortfall(corpus)


def test_broken_records_count_by_their_bytes_and_not_by_their_number(
    exam: Path, tmp_path: Path, words: Callable[[int], str]
) -> None:
    lines = as_jsonl({"text": words(5)} for _ in range(3000)) + b'{"text": "' + b"torn " * 40_000 + b"\n"
    summary = audit(exam, tmp_path / "out", write(tmp_path / "a.jsonl", lines))
    assert summary["decision"]["level"] == "unknown" and "broken records" in summary["decision"]["sentence"]


# Encodings.

ACCENTS = "Le café près de la forêt où l'été dure, und die schöne größere Brücke über den Fluß. " * 40


@pytest.mark.parametrize(
    "name", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "cp1252", "latin-1"]
)
@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "json"])
def test_other_encodings_are_decoded(tmp_path: Path, name: str, ending: str) -> None:
    content = {
        "txt": ACCENTS, "csv": f"text\n{ACCENTS}\n", "json": json.dumps([{"text": ACCENTS}], ensure_ascii=False),
        "jsonl": "".join(json.dumps({"text": ACCENTS}, ensure_ascii=False) + "\n" for _ in range(3)),
    }[ending]  # fmt: skip
    got = read(write(tmp_path / f"a.{ending}", content.encode(name)), slice_bytes=1000)
    assert ACCENTS in got.strings[0] and not [problem for problem in got.problems if problem.gap]
    assert len(got.strings) == (3 if ending == "jsonl" else 1)


@pytest.mark.parametrize(
    "content",
    [
        bytes(range(256)) * 40, b"\x7fELF\x02\x01" + b"\0\x01\x02\x03" * 900,
        "Привет, как дела? ".encode("cp1251") * 40, "你好，世界。今天天气很好。".encode("gbk") * 40,
        np.random.default_rng(0).bytes(4000),
    ],
)  # fmt: skip
def test_bytes_of_an_unknown_encoding_are_a_gap(exam: Path, tmp_path: Path, content: bytes) -> None:
    got = read(write(tmp_path / "a.txt", content))
    assert [problem.gap for problem in got.problems if "encoding that is not known" in problem.what] == [True]
    assert audit(exam, tmp_path / "out", tmp_path / "a.txt")["decision"]["level"] == "unknown"


def test_a_copy_in_utf_16_is_found(exam: Path, tmp_path: Path) -> None:
    text = "\n".join(json.loads(line)["question"] for line in exam.read_text().splitlines())
    for name in ("utf-16", "utf-16-le"):
        write(tmp_path / f"{name}.txt", text.encode(name))
        summary = audit(exam, tmp_path / f"out-{name}", tmp_path / f"{name}.txt")
        assert summary["benchmarks"][0]["verdicts"]["contaminated"] == 12


# What lies in a corpus folder and is no corpus.


def test_earlier_audits_are_left_out_and_the_benchmark_itself_is_named(
    exam: Path, tmp_path: Path, words: Callable[[int], str]
) -> None:
    corpus = tmp_path / "data"
    write(corpus / "web.jsonl", as_jsonl({"text": words(50)} for _ in range(30)))
    first = audit(exam, corpus / "audits" / "one", corpus)
    again = audit(exam, corpus / "audits" / "one", corpus)
    assert first == again and first["decision"]["level"] == "pass"
    second = audit(exam, tmp_path / "two", corpus)
    assert second["decision"]["level"] == "pass" and second["corpus"]["documents"] == 30
    assert second["corpus"]["left_out"] == [f"Left out as the output of an earlier audit: {corpus / 'audits' / 'one'}."]
    with pytest.raises(UsageError, match="output of an earlier audit"):
        audit(exam, tmp_path / "three", corpus / "audits")

    rows = [json.loads(line) for line in exam.read_text().splitlines()]
    as_csv = "q,a\n" + "".join(f'"{row["question"]}","{row["answer"]}"\n' for row in rows)
    for how, name, content in (("file", "exam.jsonl", exam.read_bytes()), ("rows", "copy.csv", as_csv.encode()),
                               ("rows", "copy.json", json.dumps({"data": rows}).encode())):  # fmt: skip
        own = write(corpus / name, content)
        summary = audit(exam, tmp_path / f"own-{name}", corpus)
        own.unlink()
        (benchmark,) = summary["benchmarks"]
        assert benchmark["verdicts"]["contaminated"] == 12 and summary["decision"]["level"] == "fail"
        assert benchmark["itself"]["files"] == [{"shard": str(own), "how": how}]
        assert benchmark["itself"]["verdicts"] == {"contaminated": 0, "suspect": 0, "clean": 12, "untestable": 0}
        assert f"in the corpus: {own}. Without it, 0 of its items" in summary["decision"]["sentence"]
        assert str(own) in _told(summary, tmp_path)
    alone = audit(exam, tmp_path / "alone", exam)
    assert "The benchmark file itself is in the corpus" in alone["decision"]["sentence"]
    assert "Nothing else is in the corpus" in alone["decision"]["sentence"]


def test_a_corpus_that_holds_the_benchmark_among_much_else_is_no_copy_of_it(
    exam: Path, tmp_path: Path, words: Callable[[int], str]
) -> None:
    rows = [json.loads(line) for line in exam.read_text().splitlines()]
    texts = [f"{words(60)} {row['question']} {words(60)}" for row in rows]
    shard = write(tmp_path / "web.jsonl", as_jsonl({"text": text} for text in texts))
    (benchmark,) = audit(exam, tmp_path / "out", shard)["benchmarks"]
    assert benchmark["verdicts"]["contaminated"] == 12 and benchmark["itself"] is None


def test_only_regular_files_are_opened_and_links_are_followed_once(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    write(corpus / "a.jsonl" / "b.txt", b"a folder with the name of a file")
    write(elsewhere / "c.txt", b"behind a link")
    os.mkfifo(corpus / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(corpus / "s"))
        for name, target in (("zero.txt", "/dev/zero"), ("up", ".."), ("self", "self"), ("gone.txt", "nowhere"),
                             ("linked", str(elsewhere))):  # fmt: skip
            (corpus / name).symlink_to(target)
        got = read(corpus)
        assert sorted(got.strings) == ["a folder with the name of a file", "behind a link"]
        assert all(problem.gap for problem in got.problems)
        named = {Path(problem.source).name: problem.what for problem in got.problems}
    assert {name for name, what in named.items() if "no file" in what} == {"pipe.jsonl", "s", "zero.txt"}
    assert {name for name, what in named.items() if "leads nowhere" in what} == {"self", "gone.txt"}
    assert sorted(read(f"{corpus}/*").strings) == sorted(got.strings)
    with pytest.raises(UsageError, match="no file that can be read twice"):
        read(corpus / "pipe.jsonl")


def test_a_pipe_that_takes_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b'{"text": "a"}\n')
    (part,) = plan_slices([str(file)], CorpusOptions())
    file.unlink()
    os.mkfifo(file)
    from checks.contamination.readers.corpus import read_slice
    from checks.contamination.records import Tally

    tally = Tally()
    assert list(read_slice(part, tally, CorpusOptions())) == []
    assert "Not a regular file" in tally.problems[0].what and tally.problems[0].gap


def test_empty_files_are_no_work_and_are_counted(tmp_path: Path) -> None:
    for i in range(200):
        write(tmp_path / f"e{i:03}.txt", b"")
    write(tmp_path / "full.txt", b"words")
    left_out: list[str] = []
    assert len(plan_slices([str(tmp_path)], CorpusOptions(), left_out=left_out)) == 1
    first = ", ".join(str(tmp_path / f"e00{i}.txt") for i in range(3))
    assert left_out == [f"Left out as empty: {first} and 197 more."]


def test_too_many_files_are_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.contamination.readers.corpus.MOST_SHARDS", 2)
    for i in range(3):
        write(tmp_path / f"{i}.txt", b"words")
    with pytest.raises(UsageError, match="3 files, more than 2. Pack them"):
        plan_slices([str(tmp_path)], CorpusOptions())


@pytest.mark.parametrize("unit", [b"\n", b"{}\n", b'{"text":""}\n', b'{"text": "all the same words"}\n'])
def test_a_bomb_is_read_to_a_bound_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: bytes
) -> None:
    monkeypatch.setattr("checks.contamination.readers.compressed.FREE", 1 << 20)
    monkeypatch.setattr("checks.contamination.readers.ledger.FREE_RECORDS", 100_000)
    got = read(write(tmp_path / "a.jsonl.gz", gzip.compress(unit * ((24 << 20) // len(unit)))))
    assert [problem.gap for problem in got.problems if "the rest was not read" in problem.what] == [True]
    assert got.records < (20 << 20) // len(unit)


def test_a_table_of_a_billion_empty_rows_is_read_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.contamination.readers.ledger.FREE_RECORDS", 100_000)
    pq.write_table(pa.table({"text": pa.array([""] * 2_000_000)}), tmp_path / "a.parquet")
    got = read(tmp_path / "a.parquet")
    assert got.records < 400_000 and got.said("next to nothing").gap


def test_json_too_large_for_one_value_is_scanned_as_raw_text(tmp_path: Path) -> None:
    rows = [{"paragraphs": [{"context": f"passage “{i}”", "qas": [{"q": f"what\nis {i}?"}]}]} for i in range(50_000)]
    got = read(write(tmp_path / "a.json", json.dumps({"data": rows}, indent=1).encode()), line_limit=20_000)
    assert "what\nis 49998?" in got.strings[0] and "passage “500”" in got.strings[0]
    assert not got.said("as raw text").gap and not got.unsearched


def test_token_ids_in_lines_are_a_gap(tmp_path: Path) -> None:
    rows = [{"text": "some words"}, {"input_ids": list(range(40))}, {"n": 4}]
    got = read(write(tmp_path / "a.jsonl", as_jsonl(rows)))
    assert got.strings == ["some words"] and got.said("token ids").gap and got.said("token ids").records == 1
    pq.write_table(pa.table({"id": ["a", "b"], "input_ids": [list(range(900))] * 2}), tmp_path / "a.parquet")
    assert [problem.gap for problem in read(tmp_path / "a.parquet").problems][:1] == [True]
