"""Reading benchmarks: real layouts get the right roles, whatever the file format; nothing is lost unsaid."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from checks.contamination.readers.benchmark import parse_roles, read_benchmark, read_benchmarks
from trainvitals.errors import UsageError

BENCHMARKS = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"


def save(path: Path, *rows: Mapping[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# One row of each published layout, shortened, and the fields that it should give.
LAYOUTS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("gsm8k", {"question": "How many?", "answer": "2+2=4\n#### 4"},
     {"question": "How many?", "answer": "2+2=4\n#### 4"}),
    ("mmlu", {"question": "Capital?", "subject": "g", "choices": ["Rome", "Oslo", "Bonn", "Paris"], "answer": 3},
     {"question": "Capital?", "choices": "Rome\nOslo\nBonn\nParis", "answer": "Paris"}),
    ("mmlu columns", {"question": "Capital?", "A": "Rome", "B": "Oslo", "C": "Bonn", "D": "Paris", "answer": "B"},
     {"question": "Capital?", "choices": "Rome\nOslo\nBonn\nParis", "answer": "Oslo"}),
    ("mmlu-pro", {"question_id": 7, "question": "Q", "options": list("abcdefghij"), "answer": "J", "answer_index": 9},
     {"question": "Q", "choices": "a\nb\nc\nd\ne\nf\ng\nh\ni\nj", "answer": "j"}),
    ("humaneval", {"task_id": "HumanEval/0", "prompt": "def f():", "canonical_solution": "  return 1", "test": "a"},
     {"answer": "  return 1", "code": "def f():"}),
    ("mbpp", {"task_id": 2, "text": "Write f", "code": "def f(): pass", "test_list": ["assert"]},
     {"question": "Write f", "answer": "def f(): pass"}),
    ("mbpp sanitized", {"task_id": 2, "prompt": "Write f", "code": "def f(): pass", "test_list": ["assert"]},
     {"question": "Write f", "answer": "def f(): pass"}),
    ("arc", {"id": 1, "question": "Which?", "choices": {"text": ["su", "ice"], "label": ["1", "2"]}, "answerKey": "2"},
     {"question": "Which?", "choices": "su\nice", "answer": "ice"}),
    ("arc original", {"id": "x", "question": {"stem": "Which?", "choices": [{"text": "sun", "label": "A"},
                      {"text": "ice", "label": "B"}]}, "answerKey": "A"},
     {"question": "Which?", "choices": "sun\nice", "answer": "sun"}),
    ("openbookqa", {"id": "x", "question_stem": "Which?", "choices": {"text": ["sun", "ice"], "label": ["A", "B"]},
                    "answerKey": "A"}, {"question": "Which?", "choices": "sun\nice", "answer": "sun"}),
    ("hellaswag", {"ind": 4, "ctx_a": "A man", "ctx": "A man sits", "endings": ["up", "down"], "label": "1"},
     {"question": "A man sits", "choices": "up\ndown", "answer": "down"}),
    ("boolq", {"question": "is it so", "passage": "It is so.", "answer": True},
     {"question": "is it so", "passage": "It is so.", "answer": "yes"}),
    ("math", {"problem": "Find x", "level": "5", "solution": "x=1"}, {"question": "Find x", "answer": "x=1"}),
    ("math500", {"problem": "Find x", "solution": "so x=1", "answer": "1", "unique_id": "t/1"},
     {"question": "Find x", "answer": "so x=1\n1"}),
    ("squad", {"id": "a", "context": "Oslo is big.", "question": "What?", "answers": {"text": ["Oslo", "Oslo"],
               "answer_start": [0, 0]}}, {"question": "What?", "passage": "Oslo is big.", "answer": "Oslo\nOslo"}),
    ("winogrande", {"sentence": "_ fell", "option1": "Ann", "option2": "Bob", "answer": "2"},
     {"question": "_ fell", "choices": "Ann\nBob", "answer": "Bob"}),
    ("piqa", {"goal": "Open it", "sol1": "push", "sol2": "pull", "label": 0},
     {"question": "Open it", "choices": "push\npull", "answer": "push"}),
    ("siqa", {"context": "Al ran.", "question": "Why?", "answerA": "late", "answerB": "fun", "answerC": "fear",
              "label": "3"}, {"question": "Al ran.\nWhy?", "choices": "late\nfun\nfear", "answer": "fear"}),
    ("copa", {"premise": "It broke.", "choice1": "fell", "choice2": "flew", "question": "cause", "label": 1, "idx": 0},
     {"question": "It broke.", "choices": "fell\nflew", "answer": "flew"}),
    ("truthfulqa", {"question": "Q", "best_answer": "no", "correct_answers": ["no", "nope"],
                    "incorrect_answers": ["si"]}, {"question": "Q", "answer": "no"}),
    ("truthfulqa csv", {"Type": "x", "Question": "Q", "Best Answer": "no", "Incorrect Answers": "si"},
     {"question": "Q", "answer": "no"}),
    ("truthfulqa mc", {"question": "Q", "mc1_targets": {"choices": ["si", "no"], "labels": [0, 1]}},
     {"question": "Q", "choices": "si\nno", "answer": "no"}),
    ("csqa", {"id": "x", "question": "Where?", "question_concept": "c", "answerKey": "B",
              "choices": {"label": ["A", "B"], "text": ["sea", "sky"]}},
     {"question": "Where?", "choices": "sea\nsky", "answer": "sky"}),
    ("agieval", {"passage": None, "question": "Q", "options": ["(A)x", "(B)y"], "label": "B", "answer": None},
     {"question": "Q", "choices": "(A)x\n(B)y", "answer": "(B)y"}),
    ("gpqa", {"Question": "Q", "Correct Answer": "c", "Incorrect Answer 1": "i", "Incorrect Answer 2": "j",
              "Incorrect Answer 3": "k", "Record ID": "rec"},
     {"question": "Q", "choices": "c\ni\nj\nk", "answer": "c"}),
    ("race", {"article": "Long ago.", "question": "When?", "options": ["now", "ago"], "answer": "B"},
     {"question": "When?", "passage": "Long ago.", "choices": "now\nago", "answer": "ago"}),
    ("sciq", {"question": "Q", "distractor1": "x", "distractor2": "y", "distractor3": "z", "correct_answer": "c",
              "support": "S"}, {"question": "Q", "passage": "S", "choices": "c\nx\ny\nz", "answer": "c"}),
    ("anli", {"uid": "x", "premise": "Oslo is big.", "hypothesis": "It is small.", "label": 2},
     {"passage": "Oslo is big.", "question": "It is small.", "answer": "2"}),
    ("svamp", {"ID": "c-1", "Body": "Ann has 3 figs.", "Question": "How many are left?", "Answer": "2"},
     {"question": "Ann has 3 figs.\nHow many are left?", "answer": "2"}),
    ("swag", {"startphrase": "A man", "ending0": "sits", "ending1": "flies", "label": 1},
     {"question": "A man", "choices": "sits\nflies", "answer": "flies"}),
    ("medqa", {"question": "Which?", "options": {"A": "rest", "B": "surgery"}, "answer": "surgery",
               "answer_idx": "B"}, {"question": "Which?", "choices": "rest\nsurgery", "answer": "surgery"}),
    ("drop", {"passage": "It ran 3 miles.", "question": "How far?", "answers_spans": {"spans": ["3"],
              "types": ["number"]}}, {"question": "How far?", "passage": "It ran 3 miles.", "answer": "3"}),
    ("lists as text", {"question": "Which?", "choices": "['su', 'ice']", "answer": "1"},
     {"question": "Which?", "choices": "su\nice", "answer": "ice"}),
    ("bbh", {"input": "not True is", "target": "False"}, {"question": "not True is", "answer": "False"}),
    ("alpaca", {"instruction": "Add", "input": "1 2", "output": "3"}, {"question": "Add\n1 2", "answer": "3"}),
    ("llm-decontaminator", {"text": "Question: Q\nAnswer: A"}, {"question": "Question: Q\nAnswer: A"}),
    ("bigcodebench", {"task_id": "B/1", "complete_prompt": "def f(): '''Do'''", "instruct_prompt": "Do",
                      "canonical_solution": "return", "test": "assert"},
     {"question": "Do", "answer": "return", "code": "def f(): '''Do'''"}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "fields"), [layout[1:] for layout in LAYOUTS], ids=[layout[0] for layout in LAYOUTS])
def test_published_layouts_get_their_roles(tmp_path: Path, row: dict[str, Any], fields: dict[str, str]) -> None:
    benchmark = read_benchmark(save(tmp_path / "b.jsonl", row))
    assert dict(benchmark.items[0].fields) == fields
    assert list(benchmark.rows) == [row]
    assert not benchmark.problems


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"published benchmarks are not at {BENCHMARKS}")
def test_published_files_are_read_whole() -> None:
    humaneval, gsm8k = read_benchmarks([str(BENCHMARKS / "humaneval.jsonl.gz"), str(BENCHMARKS / "gsm8k_*.jsonl")])
    assert (humaneval.name, gsm8k.name) == ("humaneval", "gsm8k_test")
    raw = (BENCHMARKS / "humaneval.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(raw).splitlines()]
    assert len(humaneval.items) == len(rows) == 164
    assert humaneval.sha256 == hashlib.sha256(raw).hexdigest()
    assert [item.item_id for item in humaneval.items] == [row["task_id"] for row in rows]
    assert [item.fields["code"] for item in humaneval.items] == [row["prompt"] for row in rows]
    assert len(gsm8k.items) == 1319
    assert [item.item_id for item in gsm8k.items] == [str(i) for i in range(1319)]
    assert dict(gsm8k.roles) == {"question": "question", "answer": "answer"}


def test_every_format_gives_the_same_items(tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "question": f"What — is “{i}”,\nthen?", "answer": f"It is, {i}"} for i in range(20)]
    files = [save(tmp_path / "a.jsonl", *rows)]
    for name, content in {
        "b.json": json.dumps(rows, indent=1).encode(),
        "c.json": json.dumps({"version": 1, "data": rows}).encode(),
        "d.jsonl.gz": gzip.compress(Path(files[0]).read_bytes()),
    }.items():
        (tmp_path / name).write_bytes(content)
    with open(tmp_path / "e.csv", "w", newline="") as csv_file, open(tmp_path / "f.tsv", "w", newline="") as tsv_file:
        for file, delimiter in ((csv_file, ","), (tsv_file, "\t")):
            writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "g.parquet")
    with pa.OSFile(str(tmp_path / "h.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    found = read_benchmarks([str(tmp_path)])
    assert [benchmark.name for benchmark in found] == list("abcdefgh")
    for benchmark in found:
        assert [(item.item_id, dict(item.fields)) for item in benchmark.items] == [
            (row["id"], {"question": row["question"], "answer": row["answer"]}) for row in rows
        ]
        assert list(benchmark.rows) == rows
        assert benchmark.sha256 == hashlib.sha256(Path(benchmark.source).read_bytes()).hexdigest()
        assert not benchmark.problems


def test_csv_without_a_header_is_mmlu(tmp_path: Path) -> None:
    (tmp_path / "anatomy_test.csv").write_text('"Which, then?",a,b,c,d,C\nNext?,e,f,g,h,A\n')
    benchmark = read_benchmark(str(tmp_path / "anatomy_test.csv"))
    assert [item.fields["answer"] for item in benchmark.items] == ["c", "e"]
    assert benchmark.items[0].fields["question"] == "Which, then?"


def test_data_set_name_takes_its_test_split(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    save(tmp_path / "quiz" / "train.jsonl", {"question": "train"})
    save(tmp_path / "quiz" / "test.jsonl", {"question": "test"})
    (benchmark,) = read_benchmarks([f"hf://{tmp_path}/quiz"])
    assert [item.fields["question"] for item in benchmark.items] == ["test"]
    assert (benchmark.name, len(benchmark.sha256)) == ("quiz", 64)


def test_lm_eval_samples_give_each_document_once(tmp_path: Path) -> None:
    def sample(i: int, filter_name: str) -> dict[str, Any]:
        return {
            "doc_id": i, "doc": {"question": f"Q{i}", "answer": f"A{i}"}, "target": f"A{i}", "filter": filter_name,
            "arguments": {"gen_args_0": {"arg_0": f"shots Q{i}", "arg_1": {}}}, "resps": [["x"]], "exact_match": 1.0,
        }  # fmt: skip

    rows = [sample(i, name) for name in ("strict-match", "flexible-extract") for i in (5, 3, 9)]
    benchmark = read_benchmark(save(tmp_path / "samples_gsm8k_2026-01-01.jsonl", *rows))
    assert [item.item_id for item in benchmark.items] == ["5", "3", "9"]
    assert [item.fields["question"] for item in benchmark.items] == ["Q5", "Q3", "Q9"]
    assert benchmark.rows[0] == rows[0]["doc"]
    bare = [{**row, "doc": None} for row in rows]
    benchmark = read_benchmark(save(tmp_path / "samples_bare.jsonl", *bare))
    assert dict(benchmark.items[1].fields) == {"question": "shots Q3", "answer": "A3"}
    old = [{**row, "doc": "", "arguments": [["shown", " continuation"]]} for row in rows]
    assert read_benchmark(save(tmp_path / "old.jsonl", *old)).items[0].fields["question"] == "shown"


def test_given_roles_are_all_that_is_used(tmp_path: Path) -> None:
    source = save(tmp_path / "b.jsonl", {"nr": 8, "stem": "S", "more": "M", "key": {"x": "K"}, "question": "no"})
    roles = parse_roles("question=stem, question=more,answer=key.x,id=nr")
    benchmark = read_benchmark(source, roles)
    assert dict(benchmark.items[0].fields) == {"question": "S\nM", "answer": "K"}
    assert benchmark.items[0].item_id == "8"
    assert dict(benchmark.roles) == {"stem": "question", "more": "question", "key.x": "answer"}
    other = save(tmp_path / "other.jsonl", {"question": "Q"})
    first, second = read_benchmarks([source, other], roles)
    assert (first.items, dict(second.items[0].fields)) == (benchmark.items, {"question": "Q"})
    with pytest.raises(UsageError, match="nope.*columns .*stem"):
        read_benchmark(source, {"question": ("nope",)})
    with pytest.raises(UsageError, match="nope"):
        read_benchmarks([source, other], {"question": ("nope",)})
    for wrong in ("title=x", "question"):
        with pytest.raises(UsageError, match="is not known"):
            parse_roles(wrong)


def test_ids_are_unique_and_repeats_named(tmp_path: Path) -> None:
    rows = [{"id": name, "question": name} for name in ("a", "b", "a", "a#2", "a")]
    benchmark = read_benchmark(save(tmp_path / "b.jsonl", *rows))
    assert [item.item_id for item in benchmark.items] == ["a", "b", "a#3", "a#2", "a#4"]
    (problem,) = benchmark.problems
    assert "more than once" in problem.what
    assert problem.place == "row 2 (id a); row 4 (id a)"
    index = [{"ind": 1, "idx": i, "question": "q"} for i in (7, 4)]
    assert [item.item_id for item in read_benchmark(save(tmp_path / "i.jsonl", *index)).items] == ["7", "4"]
    number = [{"ind": 1, "question": "q"}] * 2
    assert [item.item_id for item in read_benchmark(save(tmp_path / "n.jsonl", *number)).items] == ["0", "1"]


def test_benchmarks_of_one_name_are_told_apart(tmp_path: Path) -> None:
    sources = [save(tmp_path / folder / "test.jsonl", {"question": folder}) for folder in ("mmlu", "arc")]
    found = read_benchmarks([*sources, sources[0]])
    assert [benchmark.name for benchmark in found] == ["test", "arc-test"]
    assert [benchmark.items[0].benchmark for benchmark in found] == ["test", "arc-test"]


def test_broken_rows_are_named_and_the_others_kept(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    file.write_bytes(b'{"question": "a"}\n{"question": "b\n\n[1]\n{"question": "c\xff"}\n{"question": ""}\n'
                     b'{"question": "\\ud800x"}\n')  # fmt: skip
    benchmark = read_benchmark(str(file))
    assert [dict(item.fields) for item in benchmark.items] == [
        {"question": "a"}, {"question": "c\ufffd"}, {}, {"question": "?x"}
    ]  # fmt: skip
    said = {problem.what.partition(":")[0]: problem for problem in benchmark.problems}
    assert said["Not a JSON object"].place == "line 2; line 4"
    assert said["Not a JSON object"].records == 2
    assert said["Invalid UTF-8"].place == "byte 54"
    assert said["The row has no text in the columns used"].place == "row 2 (id 2)"
    (tmp_path / "c.csv").write_text("question,answer\na,b\nc\nd,e\n")
    benchmark = read_benchmark(str(tmp_path / "c.csv"))
    assert [item.fields["question"] for item in benchmark.items] == ["a", "d"]
    assert benchmark.problems[0].place == "line 3"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"colour": "red", "n": 1}\n', r"looks like a question.*colour, n.*--map question=colour"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.json", b'[{"question": "a"}, {', "not valid JSON"),
        ("a.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("a.arrow", b"ARROW1 no", "cannot be read as arrow"),
        ("a.png", b"\x89PNG", "is no benchmark"),
    ],
)
def test_what_is_no_benchmark_is_one_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_benchmarks([str(tmp_path / name)])


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No benchmark file"):
        read_benchmarks([str(tmp_path / "gone.jsonl")])


# Answers in every form, and layouts whose rows lie elsewhere.


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("C", "c3"), ("CD", "c3\nd4"), ("C,D", "c3\nd4"), ("A and C", "a1\nc3"), ("(B)", "b2"), ("b.", "b2"),
        (["A", "C"], "a1\nc3"), ([0, 2], "a1\nc3"), (["0", "2"], "a1\nc3"), ([0, 0, 1, 0], "c3"), (2, "c3"),
        ("2", "c3"), (2.0, "c3"), ("E", "E"), (7, "7"), ("-1", "-1"), (None, ""), ([], ""), (float("nan"), ""),
        ("CC", "CC"), ("CE", "CE"), ("d4", "d4"), ("Cat", "Cat"), (True, "yes"), ({"text": ["x"]}, "x"),
        ([None, "B"], "b2"), ("['A', 'B']", "a1\nb2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["list", "columns", "labels", "objects", "letters", "text"])
def test_answers_of_every_form_name_their_choices(tmp_path: Path, answer: Any, expected: str, form: str) -> None:
    texts = ["a1", "b2", "c3", "d4"]
    letters = dict(zip("ABCD", texts, strict=True))
    row: dict[str, Any] = {
        "list": {"choices": texts}, "columns": letters, "letters": {"options": letters},
        "labels": {"choices": {"text": texts, "label": list("ABCD")}},
        "objects": {"choices": [{"label": label, "text": text} for label, text in letters.items()]},
        "text": {"options": "A) a1\nB) b2\nC) c3\nD) d4"},
    }[form]  # fmt: skip
    source = save(tmp_path / "b.jsonl", {"question": "Which of these?", **row, "answer": answer})
    fields = read_benchmark(source).items[0].fields
    assert (fields["choices"], fields.get("answer", "")) == ("a1\nb2\nc3\nd4", expected)


@pytest.mark.parametrize(
    ("columns", "answers", "expected"),
    [
        (("choice0", "choice1", "choice2"), ("0", "2"), ("x", "z")),
        (("option_0", "option_1", "option_2"), (1, 2), ("y", "z")),
        (("choice1", "choice2", "choice3"), ("3", "1"), ("z", "x")),
        (("option1", "option2", "option3"), (0, 2), ("x", "z")),
        (("sol1", "sol2"), (1, 0), ("y", "x")),
        (("ending0", "ending1"), ("1", "0"), ("y", "x")),
        (("answerA", "answerB", "answerC"), ("1", "3"), ("x", "z")),
    ],
)
def test_numbers_of_choices_count_from_where_the_rows_say(
    tmp_path: Path, columns: tuple[str, ...], answers: tuple[Any, Any], expected: tuple[str, str]
) -> None:
    texts = dict(zip(columns, "xyz", strict=False))
    rows = [{"question": "Which?", **texts, "label": answer} for answer in answers]
    items = read_benchmark(save(tmp_path / "b.jsonl", *rows)).items
    assert [item.fields["choices"] for item in items] == ["\n".join(texts.values())] * 2
    assert tuple(item.fields["answer"] for item in items) == expected


QA = {"question": "what is it?", "answer": "that"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps({"version": 2, "data": [{"title": "t", "paragraphs": [
            {"context": "It is that.", "qas": [QA, {**QA, "question": "and who?"}]}]}]})),
        ("b.json", json.dumps({"q1": {"passage": "It is that.", "qa_pairs": [QA]},
                               "q2": {"passage": "It is that.", "qa_pairs": [{**QA, "question": "and who?"}]}})),
        ("c.json", json.dumps({"question": {"0": QA["question"], "1": "and who?"}, "answer": {"0": "that", "1": "that"},
                               "context": {"0": "It is that.", "1": "It is that."}})),
        ("d.json", json.dumps([["question", "answer", "context"], [QA["question"], "that", "It is that."],
                               ["and who?", "that", "It is that."]])),
        ("e.jsonl", json.dumps({"article": "It is that.", "questions": [QA["question"], "and who?"],
                                "answers": ["that", "that"]})),
        ("f.json", json.dumps({"data": [{"story": "It is that.", "questions": [
            {"input_text": QA["question"], "turn_id": 1}, {"input_text": "and who?", "turn_id": 2}],
            "answers": [{"input_text": "that"}, {"input_text": "that"}]}]}, indent=1)),
        ("g.csv", b"\xff\xfe" + ("question,answer,context\nwhat is it?,that,It is that.\n"
                                 "and who?,that,It is that.\n").encode("utf-16-le")),
    ],
)  # fmt: skip
def test_rows_that_lie_inside_are_found(tmp_path: Path, name: str, content: str | bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    benchmark = read_benchmark(str(file))
    assert [dict(item.fields) for item in benchmark.items] == [
        {"question": question, "passage": "It is that.", "answer": "that"} for question in ("what is it?", "and who?")
    ]
    assert not [problem for problem in benchmark.problems if problem.gap]


def test_a_table_without_a_header_is_read_or_says_how(tmp_path: Path) -> None:
    pairs = 'Which is "the" one that is left?\t4\nWhat is the other one then?\t"5\n'
    (tmp_path / "a.tsv").write_text(pairs)
    items = read_benchmark(str(tmp_path / "a.tsv")).items
    assert [dict(item.fields) for item in items] == [
        {"question": 'Which is "the" one that is left?', "answer": "4"},
        {"question": "What is the other one then?", "answer": '"5'},
    ]
    (tmp_path / "b.csv").write_text("7,x,Which one is left of these?,four\n8,x,What is the other one then?,five\n")
    with pytest.raises(UsageError, match=r"columns 0, 1, 2, 3.*--map question=2 --map answer=3"):
        read_benchmark(str(tmp_path / "b.csv"))
    read = read_benchmark(str(tmp_path / "b.csv"), parse_roles("question=2,answer=3,id=0"))
    assert [(item.item_id, dict(item.fields)) for item in read.items] == [
        ("7", {"question": "Which one is left of these?", "answer": "four"}),
        ("8", {"question": "What is the other one then?", "answer": "five"}),
    ]


def test_paths_reach_through_lists(tmp_path: Path) -> None:
    rows = {"sets": [{"text": "P", "tasks": [{"stem": f"S{i}", "key": i, "picks": ["x", "y"]} for i in range(2)]}]}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    roles = parse_roles("question=sets.tasks.stem,answer=sets.tasks.key,choices=sets.tasks.picks,passage=sets.text")
    items = read_benchmark(str(tmp_path / "a.json"), roles).items
    assert [dict(item.fields) for item in items] == [
        {"question": f"S{i}", "passage": "P", "choices": "x\ny", "answer": "xy"[i]} for i in range(2)
    ]
    with pytest.raises(UsageError, match=r"sets\.tasks\.nope"):
        read_benchmark(str(tmp_path / "a.json"), parse_roles("question=sets.tasks.nope"))
    pq.write_table(pa.Table.from_pylist([{"q": {"inner": {"stem": "S"}}, "a": {"value": "V"}}]), tmp_path / "b.parquet")
    (item,) = read_benchmark(str(tmp_path / "b.parquet"), parse_roles("question=q.inner.stem,answer=a.value")).items
    assert dict(item.fields) == {"question": "S", "answer": "V"}
