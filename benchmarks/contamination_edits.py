"""Both errors of a contamination audit, on truths that are known: `python -m benchmarks.contamination_edits`.

What is planted comes from the public benchmarks beside the project and goes into documents of the training sample
there; models of known truth are simulated. `--before FOLDER` sets another checkout of the project beside this one.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import io
import json
import keyword
import os
import re
import subprocess
import sys
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.contamination import DATA, _rows
from benchmarks.report import Table, machine
from checks.contamination.score.effect import measure
from checks.contamination.score.scores import Matched

Edit = Callable[[str, np.random.Generator], str]

PLANTED = 150
"""Items per kind of edit."""

# -- which score to trust ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Simulated:
    """A model, two controls and 1,000 items of Rasch's model (1960): P(right) = logistic(skill - difficulty)."""

    skill: float = 0.5
    controls: tuple[float, ...] = (0.3, 0.8)
    ease: float = 0.0
    """By how much contaminated items are easier, in logits."""
    memorised: float = 0.0
    """Share of the contaminated items that the model has learnt by heart."""
    dirty: int = 150
    items: int = 1_000


CASES: Mapping[str, Simulated] = {
    "honest, items as hard as others": Simulated(),
    "honest, easy items, controls alike": Simulated(ease=1.5),
    "honest and weak, easy items, strong controls": Simulated(skill=-1.0, controls=(2.0, 2.5), ease=1.5),
    "honest and strong, easy items, weak controls": Simulated(skill=2.0, controls=(-1.0, -0.5), ease=1.5),
    "honest, easy items, no controls": Simulated(controls=(), ease=1.5),
    "honest, easy items, too few": Simulated(ease=1.5, dirty=20),
    "contaminated, items as hard as others": Simulated(memorised=0.7),
    "contaminated, easy items": Simulated(ease=1.5, memorised=0.7),
    "contaminated and weak, easy items, strong controls": Simulated(-1.0, (2.0, 2.5), 1.5, 0.9),
    "contaminated, no controls": Simulated(controls=(), memorised=0.7),
}


def standings(case: Simulated, runs: int, seed: int = 0) -> dict[str, float]:
    """How often each standing is told of the model, as shares of the runs."""
    told: Counter[str] = Counter()
    for run in range(runs):
        rows = _simulated(case, np.random.default_rng([seed, run]))
        effects = measure(Matched(rows, {}, {}, ()), seed=run)["b"]
        told[next(effect.standing for effect in effects if not effect.control)] += 1
    return {standing: count / runs for standing, count in told.most_common()}


def _simulated(case: Simulated, rng: np.random.Generator) -> pd.DataFrame:
    dirty = np.arange(case.items) < case.dirty
    difficulty = rng.normal(size=case.items) - case.ease * dirty
    parts = []
    for number, skill in enumerate((case.skill, *case.controls)):
        right = rng.random(case.items) < 1 / (1 + np.exp(difficulty - skill))
        if number == 0:
            right |= dirty & (rng.random(case.items) < case.memorised)
        parts.append(pd.DataFrame({
            "benchmark": "b", "model": f"m{number}", "control": number > 0, "item_id": np.arange(case.items),
            "score": right.astype(float), "verdict": np.where(dirty, "contaminated", "clean"), "overlap": 0.0,
        }))
    return pd.concat(parts, ignore_index=True)


# -- edits of questions --------------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+")


def _swap(pattern: str, change: Callable[[re.Match[str], np.random.Generator], str]) -> Edit:
    """Change one place where a pattern fits; the text itself where it fits nowhere, and is then not planted."""
    compiled = re.compile(pattern)

    def edit(text: str, rng: np.random.Generator) -> str:
        found = list(compiled.finditer(text))
        if not found:
            return text
        match = found[int(rng.integers(len(found)))]
        return f"{text[: match.start()]}{change(match, rng)}{text[match.end() :]}"

    return edit


def _slip(match: re.Match[str], rng: np.random.Generator) -> str:
    word = match.group()
    at = int(rng.integers(1, len(word) - 1))
    letter = chr(97 + int(rng.integers(26)))
    return (word[:at] + letter + word[at:], word[:at] + word[at + 1 :], word[:at] + letter + word[at + 1 :],
            word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :])[int(rng.integers(4))]


def _among(words: str) -> Callable[[re.Match[str], np.random.Generator], str]:
    choices = words.split()

    def pick(match: re.Match[str], rng: np.random.Generator) -> str:
        other = [word for word in choices if word != match.group()]
        return other[int(rng.integers(len(other)))]

    return pick


PAIRS = dict(pair.split("/") for pair in (
    "more/fewer less/more before/after after/before first/last last/first each/all every/no all/none both/neither "
    "half/double twice/half most/least least/most and/or or/and left/right up/down buys/sells sells/buys bought/sold "
    "sold/bought gives/takes gave/took increases/decreases faster/slower older/younger longer/shorter larger/smaller "
    "taller/shorter higher/lower morning/evening husband/wife brother/sister he/she she/he his/her hours/minutes "
    "minutes/seconds days/weeks weeks/months months/years dollars/cents miles/feet pounds/ounces feet/inches to/from "
    "from/to with/without in/out over/under can/cannot is/isn't does/doesn't did/didn't will/won't was/wasn't "
    "are/aren't"
).split())
NAMES = "Amadou Beatrix Casimir Dunya Eskil Fatoumata Giorgos Hedda Ikenna Jolanta"
UNITS = {"minutes": "hours", "hours": "days", "dollars": "euros", "miles": "kilometers", "pounds": "kilograms",
         "feet": "yards", "inches": "centimeters", "cents": "dimes", "weeks": "days", "years": "months"}


def _flip(match: re.Match[str], rng: np.random.Generator) -> str:
    word = match.group()
    other = PAIRS[word.casefold()]
    return other.capitalize() if word[0].isupper() else other


def _two_swapped(text: str, rng: np.random.Generator) -> str:
    """Two different long words change places."""
    found = [match for match in _WORD.finditer(text) if len(match.group()) > 4]
    if len(found) < 2:
        return text
    for _ in range(20):
        one, two = sorted(rng.choice(len(found), 2, replace=False).tolist())
        if found[one].group().casefold() != found[two].group().casefold():
            a, b = found[one], found[two]
            return f"{text[: a.start()]}{b.group()}{text[a.end() : b.start()]}{a.group()}{text[b.end() :]}"
    return text


def _tagged(text: str, rng: np.random.Generator) -> str:
    """A page as of StackExchange: paragraphs, tags inside sentences, entities."""
    marks = [("<em>", "</em>"), ("<strong>", "</strong>"), ('<span class="hl x">', "</span>"), ("<code>", "</code>"),
             ('<a href="https://example.org/q?a=1&amp;b=2" rel="nofollow">', "</a>"), ("<b><i>", "</i></b>"),
             ('<span class="math-container">', "</span>"), ("", "<!-- ad -->"), ("<wbr>", ""), ("", "<br>")]

    def one(match: re.Match[str]) -> str:
        before, behind = marks[int(rng.integers(len(marks)))] if rng.random() < 0.5 else ("", "")
        return f"{before}{match.group()}{behind}"

    body = re.sub(r"\w+", one, text.replace("&", "&amp;").replace("<", "&lt;"))
    page = f'<div class="post"><p>{body}</p>\n<p>Asked <span title="x">today</span></p></div>'
    return page.replace("'", "&#39;") if rng.random() < 0.7 else page.replace("<", "&lt;").replace(">", "&gt;")


def _marked_down(text: str, rng: np.random.Generator) -> str:
    marks = [("**", "**"), ("*", "*"), ("_", "_"), ("`", "`"), ("[", "](https://example.org/a_(b))"),
    ("\\textbf{", "}"),
             ("\\emph{", "}"), ("$\\text{", "}$"), ("\u200b", "\u200b"), ("\u2060", "\ufeff")]

    def one(match: re.Match[str]) -> str:
        before, behind = marks[int(rng.integers(len(marks)))] if rng.random() < 0.5 else ("", "")
        return f"{before}{match.group()}{behind}"

    return re.sub(r"[\w,.]*\w", one, text)


def _zero_width(text: str, rng: np.random.Generator) -> str:
    return re.sub(r"(\w)(\w)", lambda m: m.group(1) + "\u200b\u2060\u00ad"[int(rng.integers(3))] + m.group(2), text)


HARMLESS: Mapping[str, Edit] = {
    "verbatim": lambda text, rng: text,
    "no punctuation": lambda text, rng: re.sub(r"[^\w\s]", "", text),
    "one slip of the pen": _swap(r"\b[a-z]{6,}\b", _slip),
    "another article": _swap(r"\b(?:a|the)\b", _among("a the")),
    "another tense of to be": _swap(r"\b(?:is|are|was|were)\b", _among("is are was were")),
    "thousands grouped": lambda text, rng: re.sub(r"\b(\d{1,3}),?(\d{3})\b", "\\1\u202f\\2", text),
    "tags inside sentences": _tagged,
    "markdown and LaTeX around words": _marked_down,
    "zero-width characters": _zero_width,
}
TURNING: Mapping[str, Edit] = {
    "negation, opposite, and / or": _swap(rf"(?i)\b(?:{'|'.join(PAIRS)})\b", _flip),
    "another name": _swap(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b", _among(NAMES)),
    "another unit": _swap(rf"\b(?:{'|'.join(UNITS)})\b", lambda match, rng: UNITS[match.group()]),
    "another number": _swap(r"\b\d+\b", lambda match, rng: str(int(match.group()) + int(rng.integers(1, 9)))),
    "two words swapped": _two_swapped,
    "a word left out": _swap(r" [a-z]{6,}(?= )", lambda match, rng: ""),
}
"""And one word replaced by a word of another item, which needs the items."""


# -- edits of programs ---------------------------------------------------------------------------------------------


def renamed(source: str, to: str = "v{}") -> str:
    """Every name that may be renamed, renamed, by Python's own tokenizer."""
    kept = {*keyword.kwlist, *dir(builtins), "List", "Tuple", "Dict", "Optional", "Any", "self"}
    kept |= {name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)
             for alias in node.names for name in (alias.asname or alias.name).split(".")}
    names: dict[str, str] = {}
    out: list[str] = []
    last, before, lines = (1, 0), "", source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string
        if token.type == tokenize.NAME and text not in kept and before != ".":
            text = names.setdefault(text, to.format(len(names)))
        if token.type in (tokenize.NAME, tokenize.OP, tokenize.STRING, tokenize.NUMBER, tokenize.COMMENT):
            (row, column), start = last, token.start
            if start[0] > row:
                out += [lines[row - 1][column:], *lines[row : start[0] - 1], lines[start[0] - 1][: start[1]]]
            else:
                out.append(lines[row - 1][column : start[1]])
            out.append(text)
            last, before = token.end, token.string
    return f"{''.join(out)}\n"


def undocumented(source: str) -> str:
    """Without docstrings and comments, laid out anew by Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(body, list):
            body[:1] = [] if len(body) > 1 else [ast.Pass()]
    return ast.unparse(tree)


CODE: Mapping[str, Callable[[str], str]] = {
    "names changed": renamed,
    "docstring left out, laid out anew": undocumented,
    "both": lambda source: undocumented(renamed(source)),
}


# -- what an audit says of them ------------------------------------------------------------------------------------


def rows() -> list[dict[str, Any]]:
    """For each kind of edit: set, edit, what it should be, items planted, and verdicts of these."""
    from checks.contamination.records import Item

    rng = np.random.default_rng(0)
    gsm = [Item("gsm8k", str(k), row) for k, row in enumerate(_rows(DATA / "benchmarks" / "gsm8k_test.jsonl"))]
    web = [f"{row['prompt']} {row['completion']}" for row in _rows(DATA / "corpora" / "t0_sample.jsonl.gz")[::50]]
    vocabulary = sorted({word for item in gsm for word in re.findall(r"\b[a-z]{5,}\b", item.fields["question"])})
    turning = {**TURNING, "another word of the benchmark": _swap(r"\b[a-z]{5,}\b", _among(" ".join(vocabulary)))}
    found = []
    for should, edits in (("contaminated", HARMLESS), ("suspect", turning)):
        for name, edit in edits.items():
            pairs = [(k, edit(gsm[k].fields["question"], rng)) for k in rng.permutation(len(gsm)).tolist()]
            pairs = [pair for pair in pairs if name in ("verbatim", "no punctuation") or (
                pair[1] != gsm[pair[0]].fields["question"])][:PLANTED]
            found.append(_row("GSM8K", name, should, gsm, pairs, web, rng))
    han = [Item("han", str(k), {"question": _han(rng)}) for k in range(PLANTED)]
    found.append(_row("numbers beside Han", "verbatim", "contaminated", han,
                      [(k, item.fields["question"]) for k, item in enumerate(han)], web, rng))
    programs = [Item("humaneval", row["task_id"], {"code": row["prompt"], "answer": row["canonical_solution"]})
                for row in _rows(DATA / "benchmarks" / "humaneval.jsonl.gz")]
    sources = [item.fields["code"] + item.fields["answer"] for item in programs]
    for name, change in CODE.items():
        found.append(_row("HumanEval", name, "not clean", programs,
                          [(k, change(source)) for k, source in enumerate(sources)], web, rng))
    stdlib = [path.read_text(errors="replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    found += [_row("HumanEval", "Python's library, nothing planted", "clean", programs, [], stdlib, rng),
              _row("GSM8K", "training sample, nothing planted", "clean", gsm, [], web, rng),
              _paraphrases(gsm, web, rng)]
    return found


def _han(rng: np.random.Generator) -> str:
    def some(count: int) -> str:
        return "".join(chr(0x4E00 + int(k)) for k in rng.integers(0, 3_000, count))

    paid, left = (int(rng.integers(2, 99)) for _ in range(2))
    return f"{some(9)}\u4e86{paid},000\u7f8e\u5143{some(8)}{left}{some(9)}\uff1f"


def _row(name: str, edit: str, should: str, items: Sequence[Any], pairs: Sequence[tuple[int, str]], web: Sequence[str],
         rng: np.random.Generator) -> dict[str, Any]:
    documents = [_within(text, web, rng) for _, text in pairs] or list(web)
    table, _ = _audit(items, documents, semantic=False)
    verdicts = table["verdict"].iloc[[k for k, _ in pairs] or list(range(len(items)))].value_counts().to_dict()
    return {"set": name, "edit": edit, "should": should, "planted": len(pairs) or len(items), **verdicts}


def _paraphrases(items: Sequence[Any], web: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    """Each item's published paraphrase among eight edited copies of it: how many paraphrases have a place."""
    told = [row["text"] for row in _rows(DATA / "corpora" / "gsm8k_test_rephrased.jsonl")]
    chosen = [int(k) for k in rng.permutation(len(items)) if len(told[k].split("Answer:")[0]) > 60][:60]
    documents, truth = [], {}
    for k in chosen:
        for _ in range(8):
            documents.append(HARMLESS["one slip of the pen"](items[k].fields["question"], rng))
        truth[k] = len(documents)
        documents.append(told[k])
    _, matches = _audit(items, [*documents, *web], semantic=True)
    semantic = matches[matches["detector"] == "semantic"]
    pairs = set(zip(semantic["item_id"], semantic["record"], strict=True))
    hits = sum((items[k].item_id, record) in pairs for k, record in truth.items())
    return {"set": "GSM8K", "edit": "paraphrase among eight near copies: listed", "should": "suspect",
            "planted": len(chosen), "suspect": hits, "clean": len(chosen) - hits}


def _within(text: str, web: Sequence[str], rng: np.random.Generator) -> str:
    before, behind = (" ".join(web[int(rng.integers(len(web)))].split()[:60]) for _ in range(2))
    return f"{before}\n\n{text}\n\n{behind}"


def _audit(items: Sequence[Any], texts: Sequence[str], semantic: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ITEMS and MATCHES of texts in memory."""
    import pyarrow as pa

    from checks.contamination.detect.exact import ExactScanner
    from checks.contamination.detect.index import NgramIndex
    from checks.contamination.detect.minhash import MinHashIndex, MinHashScanner
    from checks.contamination.detect.tfidf import TfidfIndex
    from checks.contamination.judge.verdict import judge_items
    from checks.contamination.partial import Partial, merge, thin
    from checks.contamination.records import Documents, Slice, Tally
    from checks.contamination.text.words import split_words

    raw = [text.encode() for text in texts]
    count = np.arange(len(raw), dtype=np.int64)
    docs = Documents(np.frombuffer(b"".join(raw), np.uint8), np.cumsum([0, *map(len, raw)]).astype(np.int64), count,
                     count * 0 - 1, count * 0)
    words, index = split_words(docs.text, docs.offsets), NgramIndex.build(items)
    exact, tfidf = ExactScanner(index), TfidfIndex.build(items) if semantic else None
    scanners: list[Any] = [exact, MinHashScanner(MinHashIndex.build(items), index)]
    scanners += [tfidf.scanner()] if tfidf else []
    pairs, cut = thin(pa.concat_tables([each.scan(docs, words) for each in scanners] + [
        each.finish() for each in scanners]))
    partial = Partial(0, Tally(records=len(raw), documents=len(raw)), pairs, exact.gram_counts(), cut)
    tables = judge_items(items, index, merge([partial], index.sizes), [Slice(0, "corpus.jsonl", "jsonl")],
                         p_value=tfidf.neighbour_p if tfidf else None)
    return tables[0].to_pandas(), tables[1].to_pandas()


def edit_table(ours: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> Table:
    """The verdicts side by side."""
    def shown(row: Mapping[str, Any] | None) -> str:
        return " / ".join(str(row.get(name, 0)) for name in ("contaminated", "suspect", "clean")) if row else "-"

    known = {(row["set"], row["edit"]): row for row in before}
    cells: list[Sequence[str]] = [
        [row["set"], row["edit"], row["should"], str(row["planted"]), 
         shown(known.get((row["set"], row["edit"]))), shown(row)]
        for row in ours
    ]
    return Table("What an audit says of edited items", ["items", "edit", "should be", "n", "before", "now"], cells,
                 notes="Items contaminated / suspect / clean. Each planted in a document of its own, between words of "
                       "the T0 training sample.")


def standing_table(runs: int) -> Table:
    """What is told of models whose truth is known."""
    names = ("raised", "stands", "open", "few", "no controls")
    told = {name: standings(case, runs) for name, case in CASES.items()}
    cells: list[Sequence[str]] = [[name, *(f"{rates.get(each, 0):.2f}" for each in names)]
                                  for name, rates in told.items()]
    return Table("Which score to trust: simulated models", ["model", *names], cells,
                 notes=f"Shares of {runs} runs; 1,000 items, 150 of them contaminated, two control models.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contamination_edits", description=__doc__)
    parser.add_argument("--before", metavar="FOLDER", help="another checkout, whose verdicts stand beside")
    parser.add_argument("--rows", action="store_true", help="print the verdicts as JSON and end")
    parser.add_argument("--runs", type=int, default=200, help="simulated runs per model (200)")
    args = parser.parse_args()
    if args.rows:
        print(json.dumps(rows()))
        return
    before: list[dict[str, Any]] = []
    if args.before:
        env = {**os.environ, "PYTHONPATH": str(Path(args.before).resolve())}
        done = subprocess.run([sys.executable, __file__, "--rows"], env=env, capture_output=True, text=True, check=True,
                              cwd=args.before)
        before = json.loads(done.stdout.splitlines()[-1])
    print(machine())
    print(edit_table(rows(), before).markdown())
    print(standing_table(args.runs).markdown())


if __name__ == "__main__":
    main()
