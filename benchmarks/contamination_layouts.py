"""Every benchmark layout that is read, found by itself as a corpus; the items that were left out of it are clean.

    python -m benchmarks.contamination_layouts [--quick]

Each layout of `layouts.py` gets items of its own. A quarter is left out; the others stand in the corpus in five forms:
as rows in the layout's own file, as chat, as prompt and completion, inside HTML, and as JSON in a column of text. One
audit reads all layouts against all forms. Real benchmarks are added where they are at hand.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.contamination import DATA
from benchmarks.layouts import LAYOUTS, Layout, Made, Row, items_of, write
from benchmarks.report import Table
from checks.contamination.audit import run_audit
from checks.contamination.plan import Request

LEFT_OUT = 4
"""Every fourth item stands in no corpus."""
FOUND = ("contaminated", "suspect")


def _chat(made: Made) -> Row:
    turns = [{"role": "user", "content": made.shown}, {"role": "assistant", "content": made.answer or "I see."}]
    return {"messages": turns, "source": "synthetic"}


def _pair(made: Made) -> Row:
    return {"prompt": made.shown, "completion": made.answer}


def _page(made: Made) -> Row:
    lines = "".join(f"<p class=\"q\">{html.escape(line)}</p>\n" for line in made.shown.split("\n"))
    body = f"<pre><code>{html.escape(made.shown)}</code></pre>" if "def " in made.shown else lines
    page = f"<html><body><div><h1>Exercise</h1>{body}<b>{html.escape(made.answer)}</b></div></body></html>"
    return {"url": "https://example.org/quiz", "html": page}


def _quoted(made: Made) -> Row:
    return {"text": json.dumps(made.row), "meta": {"lang": "en"}}


FORMS: dict[str, Callable[[Made], Row]] = {
    "chat": _chat, "prompt + completion": _pair, "HTML": _page, "JSON in text": _quoted
}  # fmt: skip
RAW = "rows"


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one layout."""

    layout: str
    expected: int
    """Items that stand in each form."""
    contaminated: Mapping[str, int]
    """By form."""
    found: Mapping[str, int]
    """Contaminated or suspect, by form."""
    left_out: int
    false: int
    """Items left out that are not clean."""


def _real() -> list[Layout]:
    """GSM8K and HumanEval themselves, where they are at hand."""
    def rows_of(name: str) -> list[Row]:
        import gzip

        path = DATA / "benchmarks" / name
        if not path.exists():
            return []
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    gsm8k, humaneval = rows_of("gsm8k_test.jsonl"), rows_of("humaneval.jsonl.gz")
    made = {
        "GSM8K, the real one": [Made(row, row["question"], row["answer"]) for row in gsm8k],
        "HumanEval, the real one": [Made(row, row["prompt"], row["canonical_solution"]) for row in humaneval],
    }
    return [Layout(name, lambda _, i, items=items: items[i]) for name, items in made.items() if items]  # type: ignore[misc]


def measure(folder: Path, layouts: Sequence[Layout], n: int, seed: int = 1, real: Sequence[Layout] = ()) -> list[Found]:
    """Write benchmarks and corpora, audit them once, and count for each layout and form."""
    corpus, exams = folder / "corpus", folder / "benchmarks"
    present: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    streams: dict[str, list[Row]] = {name: [] for name in FORMS}
    shards: dict[str, str] = {}
    for layout in (*layouts, *real):
        name = re.sub(r"\W+", "_", layout.name).strip("_")
        made = items_of(layout, n, seed) if layout in layouts else [layout.make(None, i) for i in range(4 * n)]  # type: ignore[arg-type]
        kept = [i for i in range(len(made)) if i % LEFT_OUT != LEFT_OUT - 1]
        write(layout, made, exams, name)
        shards[str(write(layout, [made[i] for i in kept], corpus, name))] = RAW
        present[name], sizes[name] = kept, len(made)
        for form, render in FORMS.items():
            streams[form] += [render(made[i]) for i in kept]
    for form, rows in streams.items():
        path = corpus / f"form-{form.replace(' ', '')}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        shards[str(path)] = form
    roles = [layout.roles for layout in layouts if layout.roles]
    request = Request(corpus=[str(corpus)], benchmark=[str(exams)], out=folder / "audit", semantic="none",
                      roles=roles[0] if roles else None)  # fmt: skip
    run_audit(request, lambda what, total: lambda more: None)
    return _counted(folder / "audit", present, sizes, shards, (*layouts, *real))


def _counted(
    audit: Path, present: Mapping[str, list[int]], sizes: Mapping[str, int], shards: Mapping[str, str],
    layouts: Sequence[Layout],
) -> list[Found]:  # fmt: skip
    items = pq.read_table(audit / "items.parquet", columns=["benchmark", "item_id", "verdict"]).to_pandas()
    matches = pq.read_table(audit / "matches.parquet", columns=["benchmark", "item_id", "shard", "level"]).to_pandas()
    matches["form"] = matches["shard"].map(shards)
    result = []
    for layout, (name, kept) in zip(layouts, present.items(), strict=True):
        own = items[items["benchmark"] == name].reset_index(drop=True)
        assert len(own) == sizes[name], f"{layout.name}: {len(own)} of {sizes[name]} items were read"
        ids = set(own.loc[kept, "item_id"])
        hits = matches[(matches["benchmark"] == name) & matches["item_id"].isin(ids)]
        counts = [
            {form: int(hits[(hits["form"] == form) & hits["level"].isin(levels)]["item_id"].nunique())
             for form in (RAW, *FORMS)}
            for levels in (FOUND[:1], FOUND)
        ]  # fmt: skip
        others = own.drop(index=kept)
        result.append(Found(layout.name, len(kept), *counts, len(others), int((others["verdict"] != "clean").sum())))
    return result


def table(found: Sequence[Found]) -> Table:
    """Layout x form: contaminated of expected."""
    forms = (RAW, *FORMS)
    cells: list[Sequence[str]] = [
        [row.layout, *(_cell(row, form) for form in forms), f"{row.false} of {row.left_out}"] for row in found
    ]
    total = [f"{sum(r.contaminated[f] for r in found)} / {sum(r.expected for r in found)}" for f in forms]
    false = f"{sum(r.false for r in found)} of {sum(r.left_out for r in found)}"
    return Table(
        f"{len(found)} benchmark layouts, found by themselves",
        ["layout", *(f"{form}" for form in forms), "left out, not clean"],
        [*cells, ["all", *total, false]],
        notes="Items called contaminated / items present, for each form in which they stand in the corpus; in brackets "
        "those that are suspect there. The items left out must be clean. The text of the made-up items is generated, "
        "their columns and files are those of the data sets.",
    )


def _cell(row: Found, form: str) -> str:
    more = row.found[form] - row.contaminated[form]
    return f"{row.contaminated[form]} / {row.expected}" + (f" ({more} suspect)" if more else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.contamination_layouts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four items per layout instead of twelve")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory(prefix="tv-layouts-") as folder:
        print(table(measure(Path(folder), LAYOUTS, 4 if quick else 12, real=_real())).markdown())


if __name__ == "__main__":
    main()
