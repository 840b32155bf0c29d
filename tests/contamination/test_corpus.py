"""Reading corpora: every format gives the same documents, and whatever cannot be read is counted and named."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.readers import batches, compressed, jsonl, stored
from checks.contamination.readers.corpus import CorpusOptions, plan_slices, read_slice
from checks.contamination.readers.keys import MOST_KEYS, is_plain
from checks.contamination.records import OVERLAP, Problem, Tally
from trainvitals.errors import UsageError

CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
TEXTS = [f"Document {i}: naïve words — “quoted”\nand line {'x' * (i % 50)}." for i in range(300)]
RECORDS = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


@dataclass
class Read:
    """All documents of a corpus, pieces put together again, and the sums over its slices."""

    texts: list[bytes]
    ids: list[str]
    places: list[tuple[int, int]]
    """(record, byte offset) of each document."""
    records: int
    skipped: int
    problems: list[Problem]
    hashes: list[str]
    columns: set[str]
    unsearched: dict[str, int]
    no_text: dict[str, int]

    @property
    def strings(self) -> list[str]:
        return [text.decode() for text in self.texts]

    def said(self, words: str) -> Problem:
        found = [problem for problem in self.problems if words in problem.what]
        assert len(found) == 1, (words, self.problems)
        return found[0]


def read(*paths: Any, **options: Any) -> Read:
    chosen = CorpusOptions(**options)
    out, text_bytes = Read([], [], [], 0, 0, [], [], set(), {}, {}), 0
    for part in plan_slices([str(path) for path in paths], chosen):
        tally = Tally()
        for documents in read_slice(part, tally, chosen):
            for i in range(len(documents)):
                text = documents.text[documents.offsets[i] : documents.offsets[i + 1]].tobytes()
                start = int(documents.piece_starts[i])
                if start:
                    assert out.texts[-1][start:] == text[:OVERLAP]
                    out.texts[-1] = out.texts[-1][:start] + text
                    continue
                out.texts.append(text)
                out.ids.append(documents.ids[i] if documents.ids else "")
                out.places.append((int(documents.records[i]), int(documents.byte_offsets[i])))
        assert tally.documents + tally.skipped == tally.records, tally
        out.records += tally.records
        out.skipped += tally.skipped
        out.problems += tally.problems
        out.columns |= set(tally.columns)
        for total, own in ((out.unsearched, tally.unsearched), (out.no_text, tally.no_text)):
            for name, size in own.items():
                total[name] = total.get(name, 0) + size
        out.hashes.append(tally.sha256)
        text_bytes += tally.text_bytes
    assert text_bytes == sum(map(len, out.texts))
    return out


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def write_all_formats(folder: Path) -> list[Path]:
    table = pa.Table.from_pylist(RECORDS)
    files = [
        write(folder / "a.jsonl", LINES),
        write(folder / "b.jsonl.gz", gzip.compress(LINES)),
        write(folder / "c.jsonl.zst", zstd(LINES[: len(LINES) // 2]) + zstd(LINES[len(LINES) // 2 :])),
        write(folder / "d.json", json.dumps(RECORDS, indent=1).encode()),
        write(folder / "e.json", LINES),
        write(folder / "f.json", "\n".join(json.dumps(record, indent=2) for record in RECORDS).encode()),
        write(folder / "g.ndjson", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
    ]
    pq.write_table(table, folder / "h.parquet", row_group_size=70)
    with pa.OSFile(str(folder / "i.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=64)
    with pa.OSFile(str(folder / "j.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=64)
    dictionary = table.set_column(1, "text", table["text"].dictionary_encode())
    with pa.OSFile(str(folder / "k.arrow"), "wb") as sink, pa.ipc.new_stream(sink, dictionary.schema) as writer:
        writer.write_table(dictionary)
    return [*files, *(folder / f"{name}" for name in ("h.parquet", "i.arrow", "j.arrow", "k.arrow"))]


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    for file in write_all_formats(tmp_path):
        got = read(file)
        assert got.strings == TEXTS, file
        assert got.ids == [record["id"] for record in RECORDS], file
        assert not got.problems, file
        assert got.hashes == [hashlib.sha256(file.read_bytes()).hexdigest()], file


def test_data_set_name_streams_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "data" / "train.jsonl", LINES)
    write(tmp_path / "data" / "test.jsonl", LINES[: LINES.index(b"\n") + 1])
    assert read(f"hf://{tmp_path}/data:train").strings == TEXTS
    assert len(read(f"hf://{tmp_path}/data").texts) == len(TEXTS) + 1
    with pytest.raises(UsageError, match="Check the name"):
        read(f"hf://{tmp_path}/data:dev")


@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"published corpora are not at {CORPORA}")
@pytest.mark.parametrize(("name", "count"), [("gsm8k_train.jsonl", 7473), ("t0_sample.jsonl.gz", 27246)])
def test_published_corpora_are_read_whole(name: str, count: int) -> None:
    file = CORPORA / name
    content = gzip.decompress(file.read_bytes()) if name.endswith(".gz") else file.read_bytes()
    rows = [json.loads(line) for line in content.splitlines()]
    got = read(file)
    assert got.records == count == len(rows)
    assert got.strings == ["\n".join(row.values()) for row in rows]
    assert [content[at : at + 1] for _, at in got.places] == [b"{"] * count
    assert not got.problems


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3000), st.booleans())
def test_byte_ranges_together_are_the_file(tmp_path_factory: pytest.TempPathFactory, size: int, crlf: bool) -> None:
    content = LINES[: 5 * size].replace(b"\n", b"\r\n" if crlf else b"\n")
    file = write(tmp_path_factory.mktemp("ranges") / "a.jsonl", content)
    whole, cut = read(file), read(file, slice_bytes=size)
    assert cut.texts == whole.texts
    assert [at for _, at in cut.places] == [at for _, at in whole.places]
    assert (cut.records, cut.skipped) == (whole.records, whole.skipped)
    parts = [content[len(content) * i // n : len(content) * (i + 1) // n] for n in [len(cut.hashes)] for i in range(n)]
    assert cut.hashes == [hashlib.sha256(part).hexdigest() for part in parts]


def test_row_groups_together_are_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), file, row_group_size=40, compression="none", use_dictionary=False)
    cut = read(file, slice_bytes=6000)
    assert len(cut.hashes) > 2
    assert cut.strings == TEXTS
    content, start = file.read_bytes(), 0
    for part, digest in zip(plan_slices([str(file)], CorpusOptions(slice_bytes=6000)), cut.hashes, strict=True):
        bytes_of_part = content[start : start + part.size + (4 if start == 0 else 0)]  # the magic before group 0
        assert hashlib.sha256(bytes_of_part).hexdigest() == digest
        start += len(bytes_of_part)
    assert start == len(content)


values = st.one_of(
    st.none(), st.integers(-5, 1 << 70), st.floats(), st.booleans(), st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=2), st.dictionaries(st.sampled_from(["content", "x"]), st.text(max_size=4)),
)  # fmt: skip
names = st.sampled_from(["text", "content", "prompt", "answer", "id", "url", "other"])
rows = st.dictionaries(names, values, max_size=4)
plain_rows = st.fixed_dictionaries(
    {"text": st.text(max_size=9)}, optional={"content": st.text(), "id": st.text(max_size=3)}
)
noise = st.sampled_from([
    b"", b"\r", b"  ", b"{", b"null", b"[1]", b"\x00\x00", b'"bare"', b'{"text": "a\xffb"}', b'{"text": "a\x00b"}',
    b'{"text":"a"}{"text":"b"}', b'{"text":"\\ud800"}', b'{"text":"a","text":"b"}',
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(plain_rows, plain_rows, rows, noise), max_size=9), st.booleans())
def test_fast_and_slow_way_agree(
    tmp_path_factory: pytest.TempPathFactory, lines: Sequence[dict[str, Any] | bytes], ascii_only: bool
) -> None:
    encoded = [
        line if isinstance(line, bytes) else json.dumps(line, ensure_ascii=ascii_only).encode("utf-8", "replace")
        for line in lines
    ]
    file = write(tmp_path_factory.mktemp("agree") / "a.jsonl", b"\n".join(encoded))
    fast = read(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl._Lines, "_fast", lambda *_: None)
        slow = read(file)
    fast.problems, slow.problems = ([p for p in r.problems if "JSON strings" not in p.what and "UTF-8" not in p.what]
                                    for r in (fast, slow))  # fmt: skip
    assert fast == slow


def test_the_fast_way_is_taken_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl._Lines, "_slow", None)
    parts = [{"instruction": "a", "input": "", "output": "b", "n": 1}, {"instruction": "c", "output": "d"}]
    assert read(write(tmp_path / "a.jsonl", as_jsonl(parts))).strings == ["a\nb", "c\nd"]
    mixed = [{"text": "a", "id": 5, "meta": {"x": [1]}}, {"text": None}, {"prompt": "late"}, {"text": "b", "id": 6}]
    got = read(write(tmp_path / "b.jsonl", as_jsonl(mixed)))
    assert (got.strings, got.ids, got.skipped) == (["a", "late", "b"], ["5", "", "6"], 1)
    assert got.columns == {"text", "prompt"}
    typed = [{"text": "a", "code": 200, "input": True}, {"text": "b", "code": 404}]
    assert read(write(tmp_path / "c.jsonl", as_jsonl(typed))).strings == ["a", "b"]


def test_a_block_with_many_keys_or_deep_values_is_not_plain() -> None:
    flat = as_jsonl([{"text": "a [b] {c} \\" * 40, "n": i} for i in range(50)])
    assert is_plain(flat) and is_plain(b"") and is_plain(b"{}\n")
    assert is_plain(as_jsonl([{"meta": {"a": {"b": [1, 2]}}, "messages": [{"content": "x"}] * 60}] * 9))
    assert not is_plain(as_jsonl({f"key{i}": i} for i in range(MOST_KEYS + 1)))
    for deep in ("[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000, "[1," * 5000 + "1" + "]" * 5000):
        for start in ('{"text": "x", "m": ', '{"m":', '{"m" : '):
            assert not is_plain(flat + f"{start}{deep}}}\n".encode() + flat)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), st.text(min_size=1, max_size=3), st.lists(st.none(), max_size=2)))))
def test_nulls_in_lists_move_no_text_to_another_record(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[Any]]
) -> None:
    file = write(tmp_path_factory.mktemp("nulls") / "a.jsonl", as_jsonl({"o": values} for values in lists))
    expected = ["\n".join(v for v in values if isinstance(v, str)) for values in lists]
    assert read(file).strings == [text for text in expected if text]


def test_deep_and_keyed_records_are_read_without_end_of_the_process(tmp_path: Path) -> None:
    deep = '{"a":' * 400 + '"a hidden question"' + "}" * 400
    hopeless = "[" * 100_000 + "]" * 100_000
    lines = [f'{{"text": "one", "m": {deep}}}', f'{{"text": "two", "m": {hopeless}}}', '{"text": "three"}']
    got = read(write(tmp_path / "a.jsonl", "\n".join(lines).encode()))
    assert got.strings[0].split("\n") == ["one", "a hidden question"] and got.strings[-1] == "three"
    assert got.said("Not valid JSON").gap and got.unsearched["broken records"] > 200_000
    keyed = as_jsonl({"id": str(i), f"doc {i}": f"text {i}"} for i in range(2000))
    assert read(write(tmp_path / "b.jsonl", keyed)).strings == [f"text {i}" for i in range(2000)]


@pytest.mark.parametrize("where", ["every record", "the second record", "the last block"])
def test_text_beside_the_column_text_is_searched(tmp_path: Path, where: str) -> None:
    """A question hidden behind a heading is a leak all the same."""
    plain, leak = {"text": "Exercise 3"}, {"text": "Exercise 3", "question": "How many?", "answer": "Ten."}
    table = {"every record": [leak] * 9, "the second record": [plain, leak],
             "the last block": [{"text": "x" * 1000}] * 9000 + [leak]}[where]  # fmt: skip
    schema = pa.schema([(name, pa.string()) for name in leak])
    pq.write_table(pa.Table.from_pylist(table, schema), tmp_path / "a.parquet")
    for file in (write(tmp_path / "a.jsonl", as_jsonl(table)), write(tmp_path / "a.json", json.dumps(table).encode()),
                 tmp_path / "a.parquet"):  # fmt: skip
        got = read(file)
        assert got.strings[-1] == "Exercise 3\nHow many?\nTen." and not got.problems
        assert got.columns == {"text", "question", "answer"}
    assert read(tmp_path / "a.jsonl", text_columns=("text",)).columns == {"text"}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}, "hi\nho"),
        ({"messages": [{"content": [{"type": "text", "text": "hi"}, {"type": "image", "text": None}]}]}, "hi"),
        ({"conversations": [[{"from": "human", "value": "a"}], [{"from": "gpt", "value": "b"}]]}, "a\nb"),
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": 1}, "q\nx\ny"),
        ({"func": "def f(): pass", "n": 3, "tags": ["t", "u"]}, "def f(): pass\nt\nu"),
        ({"content": "c", "title": "t", "raw_content": "r"}, "t\nc\nr"),
        ({"messages": [{"role": "user", "content": "hi", "reasoning": "so"}], "x": {"y": [["z"]]}}, "hi\nso\nz"),
        ({"text": "", "title": "", "answer": "a"}, "a"),
    ],
)
def test_text_of_nested_records_is_found_in_every_format(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    got = read(write(tmp_path / "a.jsonl", as_jsonl([row, row])))
    assert got.strings[0].split() == text.split()
    pq.write_table(pa.Table.from_pylist([row, row]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").strings == got.strings
    assert [p.what for p in got.problems] == [p.what for p in read(tmp_path / "a.parquet").problems]
    assert got.no_text == read(tmp_path / "a.parquet").no_text


maybe = st.one_of(st.none(), st.text(max_size=4))
messages = st.one_of(st.none(), st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": maybe})))
options = st.one_of(st.none(), st.lists(maybe))
columns = {"id": maybe, "body": maybe, "prompt": maybe, "answer": maybe, "messages": messages, "options": options}
tables = st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_parquet_and_json_lines_agree(tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("agree")
    string, record = pa.string(), pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"messages": pa.list_(record), "options": pa.list_(string)}
    schema = pa.schema([(name, kinds.get(name, string)) for name in table[0]])
    pq.write_table(pa.Table.from_pylist(table, schema), folder / "a.parquet")
    lines, table_read = read(write(folder / "a.jsonl", as_jsonl(table))), read(folder / "a.parquet")
    assert table_read.texts == lines.texts
    assert [number for number, _ in table_read.places] == [number for number, _ in lines.places]
    assert (table_read.records, table_read.skipped) == (lines.records, lines.skipped)


def test_named_columns_are_read_and_no_others(tmp_path: Path) -> None:
    rows = [{"text": "no", "body2": ["a", "b"], "nr": 7}, {"text": "no"}]
    for file in (write(tmp_path / "a.jsonl", as_jsonl(rows)), tmp_path / "a.parquet"):
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        got = read(file, text_columns=("body2",), id_column="nr")
        assert (got.strings, got.ids, got.skipped) == (["a\nb"], ["7"], 1)
        assert "2" in got.said("holds no text").place
        assert got.unsearched == {"text: not named by --text-column": 4}


@pytest.mark.parametrize(
    ("line", "what", "text"),
    [
        (b'{"text": "half', "Not valid JSON", None),
        (b"\x00" * 40, "Not valid JSON", None),
        (b'["a", ["b"]]', "", b"a\nb"),
        (b"[1, 2]", "A bare value without text", None),
        (b"null", "A bare value without text", None),
        (b'{"text": 5}', "The record holds no text", None),
        (b'{"text": null}', "The record holds no text", None),
        (b'{"text": ""}', "The record holds no text", None),
        (b'{"n": 1}', "The record holds no text", None),
        (b"", "Blank lines", None),
        (b" \t", "Blank lines", None),
        (b"[" * 100_000, "Not valid JSON", None),
        (b'{"text": "a\xff\xfeb"}', "Invalid UTF-8", b"a\xff\xfeb"),
        (b'{"text": "a\x00b"}', "Raw NUL", b"a\x00b"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(
    tmp_path: Path, line: bytes, what: str, text: bytes | None
) -> None:
    lines = LINES.splitlines(keepends=True)
    at = sum(map(len, lines[:7]))
    got = read(write(tmp_path / "a.jsonl", b"".join([*lines[:7], line + b"\n", *lines[7:]])))
    assert got.records == len(RECORDS) + 1
    if what:
        assert got.said(what).place == f"line 8, byte {at}"
        assert got.said(what).records == got.skipped == int(text is None)
    assert bool(got.unsearched) == (what == "Not valid JSON")
    assert got.texts == [t.encode() for t in TEXTS[:7]] + ([text] if text else []) + [t.encode() for t in TEXTS[7:]]
    assert got.places[-1] == (len(RECORDS), at + len(line) + 1 + sum(map(len, lines[7:-1])))


def test_half_a_line_at_the_end_is_named(tmp_path: Path) -> None:
    got = read(write(tmp_path / "a.jsonl", LINES[:-9]))
    assert got.strings == TEXTS[:-1]
    assert got.said("Not valid JSON").place.startswith("line 300, ")


def test_many_bad_lines_are_one_problem(tmp_path: Path) -> None:
    got = read(write(tmp_path / "a.jsonl", b"oops\n" * 1000 + LINES))
    assert got.strings == TEXTS
    problem = got.said("Not valid JSON")
    assert problem.records == 1000
    assert problem.place.startswith("line 1, byte 0; line 2, byte 5;")
    assert problem.place.endswith("; and 995 more")


def gzip_members(folder: Path) -> tuple[list[bytes], bytes, list[int]]:
    lines = LINES.splitlines(keepends=True)
    members = [gzip.compress(b"".join(lines[i : i + 100])) for i in range(0, 300, 100)]
    starts = [0, len(members[0]), len(members[0]) + len(members[1])]
    return members, b"".join(members), starts


def test_damage_in_a_gzip_member_is_named_and_the_next_member_read(tmp_path: Path) -> None:
    members, whole, starts = gzip_members(tmp_path)
    middle = starts[1] + len(members[1]) // 2
    damaged = whole[:middle] + b"\xff" * 60 + whole[middle + 60 :]
    got = read(write(tmp_path / "a.jsonl.gz", damaged))
    assert got.strings[:100] == TEXTS[:100]
    assert got.strings[-100:] == TEXTS[200:]
    problem = got.said("Damaged gzip data")
    assert problem.place.endswith(f"to {starts[2]}")
    assert got.hashes == [hashlib.sha256(damaged).hexdigest()]


@pytest.mark.parametrize("where", ["header", "checksum", "garbage before", "garbage behind", "zeros behind"])
def test_gzip_survives_damage_at_its_edges(tmp_path: Path, where: str) -> None:
    members, whole, starts = gzip_members(tmp_path)
    content = {
        "header": whole[: starts[1]] + b"\0" * 10 + whole[starts[1] + 10 :],
        "checksum": whole[: starts[2] - 8] + b"\0" * 8 + whole[starts[2] :],
        "garbage before": b"\x01\x02" * 700 + whole,
        "garbage behind": whole + b"some text" * 50,
        "zeros behind": whole + b"\0" * 5000,
    }[where]
    got = read(write(tmp_path / "a.jsonl.gz", content))
    assert got.strings[:100] == TEXTS[:100]
    assert got.strings[-100:] == TEXTS[200:]
    assert len(got.texts) == (200 if where == "header" else 300)
    assert bool(got.problems) == (where != "zeros behind")


def test_truncated_gzip_is_read_to_its_end(tmp_path: Path) -> None:
    content = gzip.compress(LINES, mtime=0)[:-700]
    got = read(write(tmp_path / "a.jsonl.gz", content))
    assert 100 < len(got.texts) < 300
    assert got.strings == TEXTS[: len(got.texts)]
    assert got.said("ends in the middle").place == f"stored byte {len(content)}"


def test_damaged_zstd_frame_is_named_and_the_next_read(tmp_path: Path) -> None:
    frames = [zstd(LINES[:5000]), bytearray(zstd(LINES)), zstd(as_jsonl([{"text": "last"}]))]
    frames[1][60:90] = b"\xff" * 30
    got = read(write(tmp_path / "a.jsonl.zst", b"".join(frames)))
    assert got.strings[0] == TEXTS[0]
    assert got.strings[-1] == "last"
    assert "Damaged zstd" in got.said("Damaged zstd").what


def test_a_name_that_lies_about_compression_is_seen_through(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.jsonl.gz", LINES)).strings == TEXTS
    assert read(write(tmp_path / "b.jsonl", gzip.compress(LINES))).strings == TEXTS
    assert read(write(tmp_path / "c.jsonl", gzip.compress(LINES)), slice_bytes=100).strings == TEXTS


def test_a_line_above_the_limit_is_read_in_pieces(tmp_path: Path) -> None:
    words = " ".join(f"word{i} “é” \U0001f600 \\ \"x\" \t/\n" for i in range(250_000))
    line = json.dumps({"text": words}).encode() + b"\n"
    assert len(line) > 3 * stored.BLOCK
    got = read(write(tmp_path / "a.jsonl", b"\n" + line + LINES), line_limit=50_000)
    assert got.strings[-300:] == TEXTS
    long = max(got.strings, key=len)
    assert words in long
    assert got.said("above 50,000 bytes").place == "line 2, byte 1"
    assert got.places[:2] == [(1, 1), (2, 1 + len(line))]


def test_a_huge_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    options = CorpusOptions(line_limit=1 << 20)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(b'{"text": "')
        for _ in range(60):
            file.write(b"tell me more " * 80_000)
        file.write(b'"}\n' + LINES)
    (part,) = plan_slices([str(tmp_path / "a.jsonl.gz")], options)
    tally = Tally()
    tracemalloc.start()
    for documents in read_slice(part, tally, options):
        assert len(documents.text) <= batches.PIECE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tally.documents == tally.records == 301
    assert tally.text_bytes > 62_000_000
    assert peak < 50_000_000, peak


def test_text_file_is_one_document_with_its_damage_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PIECE", 90_000)
    content = ("Ünïcode text. " * 30_000).encode()
    assert read(write(tmp_path / "a.txt", content)).texts == [content]
    assert read(write(tmp_path / "b.txt.gz", gzip.compress(content))).texts == [content]
    bad = content[:300_007] + b"\xff\0" + content[300_007:]
    got = read(write(tmp_path / "c.md", bad))
    assert got.texts == [bad]
    assert got.said("not valid UTF-8").place in ("byte 300006", "byte 300007")
    assert got.said("NUL").place == "byte 300008"
    assert "empty" in read(write(tmp_path / "d.txt", b"")).problems[0].what


def test_damaged_parquet_loses_no_more_than_it_says(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), file, row_group_size=100, compression="zstd")
    about = pq.ParquetFile(file).metadata.row_group(1).column(1)
    content = bytearray(file.read_bytes())
    start = about.data_page_offset
    content[start : start + 80] = b"\xff" * 80
    got = read(write(tmp_path / "b.parquet", bytes(content)))
    assert got.strings == TEXTS[:100] + TEXTS[200:]
    assert (got.records, got.skipped) == (300, 100)
    assert "row group 1" in got.said("Not readable as Parquet").place
    cut = read(write(tmp_path / "c.parquet", file.read_bytes()[:-20]))
    assert not cut.texts
    assert "Not readable as Parquet" in cut.problems[0].what


def test_damaged_arrow_is_read_up_to_the_damage(tmp_path: Path) -> None:
    write_all_formats(tmp_path)
    content = (tmp_path / "j.arrow").read_bytes()
    got = read(write(tmp_path / "x.arrow", content[: len(content) // 2]))
    assert 64 <= len(got.texts) < 300
    assert got.strings == TEXTS[: len(got.texts)]
    assert got.said("Not readable as Arrow").place.startswith(f"from record {len(got.texts) + 1}")


def test_table_without_text_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2], "input_ids": [[1], [2]]}), tmp_path / "a.parquet")
    assert "token ids only" in str(read(tmp_path / "a.parquet").problems)
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "b.parquet")
    got = read(tmp_path / "b.parquet")
    assert (got.records, got.skipped) == (2, 2)
    assert "No column holds text" in got.problems[0].what


def test_broken_json_array_is_read_up_to_the_damage(tmp_path: Path) -> None:
    content = json.dumps(RECORDS).encode()
    got = read(write(tmp_path / "a.json", content[: len(content) // 2]))
    assert got.strings[:-1] == TEXTS[: len(got.texts) - 1]
    assert 100 < len(got.texts) < 200
    assert got.strings[-1].startswith('{"id": "d')
    assert "as raw text" in got.problems[0].what and got.problems[0].gap


def test_empty_and_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = read(write(tmp_path / "a.jsonl", b""))
    assert "no documents" in got.said("no documents").what
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    assert "No such file" in read(tmp_path / "gone.jsonl").problems[0].what

    def refuse(shard: str) -> None:
        raise PermissionError(13, "Permission denied", shard)

    for module in (stored, compressed):
        monkeypatch.setattr(module, "open_stored", refuse, raising=False)
    assert "Permission denied" in read(tmp_path / "a.jsonl").problems[0].what


def test_a_disk_that_fails_midway_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> Iterable[bytes]:
        yield LINES
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(compressed, "stored_blocks", failing)
    got = read(write(tmp_path / "a.jsonl", LINES))
    assert len(got.texts) == 300
    assert "Input/output error" in got.problems[0].what
    assert got.hashes == [""]  # a half-read file has no hash


def test_plan_is_ordered_and_counts_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "sub/c.txt", "_SUCCESS", ".hidden.jsonl", "state.json", "sub/x.bin"):
        write(tmp_path / name, LINES)
    monkeypatch.chdir(tmp_path)
    slices = plan_slices(["b.jsonl", ".", str(tmp_path / "*.jsonl"), "./b.jsonl"], CorpusOptions())
    assert [(part.shard, part.kind) for part in slices] == [
        ("b.jsonl", "jsonl"), ("./a.jsonl.gz", "jsonl"), ("./sub/c.txt", "text"), ("./sub/x.bin", "token ids")
    ]  # fmt: skip
    assert [part.index for part in slices] == [0, 1, 2, 3]


def test_a_file_that_no_reader_takes_is_a_gap_until_it_is_named(tmp_path: Path) -> None:
    beside = ("LICENSE", "x.jsonl.sha256", "logo.PNG", ".gitattributes", "_SUCCESS")
    for name in ("leak.log", "x.npy", "README.md", *beside):
        write(tmp_path / name, b"some words")
    got = read(tmp_path)
    assert got.strings == ["some words"]
    log, tokens = got.said("kind that is not read"), got.said("Token ids")
    assert (log.gap, log.source) == (True, str(tmp_path / "leak.log")) and "by itself" in log.what
    assert (tokens.gap, tokens.source) == (True, str(tmp_path / "x.npy")) and "--tokenizer" in tokens.what
    assert len(got.problems) == 2
    for paths in ([tmp_path, tmp_path / "leak.log"], [tmp_path / "leak.log", tmp_path]):
        assert read(*paths).strings == ["some words", "some words"]


@pytest.mark.parametrize("path", ["nothing-here/x.jsonl", "nothing/*.jsonl", "nothing.parquet", "nosuch://x/y"])
def test_a_path_that_names_nothing_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=path.partition("/")[0].partition(":")[0]):
        plan_slices([path], CorpusOptions())


def test_urls_are_read_like_files(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "h.parquet")
    try:
        files.pipe("/corpus/a.jsonl", LINES)
        files.pipe("/corpus/b.parquet", (tmp_path / "h.parquet").read_bytes())
        got = read("memory://corpus", slice_bytes=1000)
        assert got.strings == TEXTS + TEXTS
        assert read("memory://corpus/*.jsonl").strings == TEXTS
        with pytest.raises(UsageError):
            read("memory://elsewhere/*.jsonl")
    finally:
        files.rm("/corpus", recursive=True)


def byte_level() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece_like() -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, show_progress=False, limit_alphabet=60
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
@pytest.mark.parametrize("form", ["npy", "bin", "uint32 bin", "parquet"])
def test_token_shards_decode_as_their_tokenizer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, form: str
) -> None:
    monkeypatch.setattr("checks.contamination.readers.tokens.STORED_BLOCK", 1001)
    tokenizer = make()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoded = [tokenizer.encode(text).ids for text in TEXTS]
    expected = [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded]
    eos = tokenizer.token_to_id("<|endoftext|>") or tokenizer.token_to_id("</s>") or 0
    flat = np.array([token for ids in encoded for token in [*ids, eos]], np.uint16)
    file = tmp_path / f"a.{form.split()[-1]}"
    if form == "npy":
        np.save(file, np.concatenate([[eos], flat]).astype(np.int32))
    elif form == "parquet":
        pq.write_table(pa.table({"input_ids": encoded, "attention_mask": [[1]] * len(encoded)}), file)
    else:
        file.write_bytes(flat.astype(np.uint32 if "32" in form else np.uint16).tobytes())
    got = read(file, tokenizer=str(tmp_path), token_dtype="uint32" if "32" in form else "")
    assert got.strings == expected
    assert "“quoted”" in got.strings[0]
    assert not got.problems
    if form == "bin":
        starts = np.concatenate([[0], np.cumsum([len(ids) + 1 for ids in encoded])[:-1]])
        assert [at for _, at in got.places] == (2 * starts).tolist()


def test_token_shard_needs_its_tokenizer(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    with pytest.raises(UsageError, match="--tokenizer"):
        read(tmp_path / "a.npy")
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match="<|endoftext|>"):
        read(tmp_path / "a.npy", tokenizer=str(tmp_path), eos="<nope>")
    np.save(tmp_path / "b.npy", np.array([5, 6, 70_000, 0]))
    assert "beyond the tokenizer's vocabulary" in str(read(tmp_path / "b.npy", tokenizer=str(tmp_path)).problems)
