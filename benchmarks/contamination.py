"""The exact contamination scan beside the tools that people use, on the same documents with the same items planted.

    python -m benchmarks contamination

Every candidate runs in a fresh process on one core, text in memory as it likes it best (bytes or strings) and index
ready. CPU seconds of all threads, best of several runs; slow candidates get the beginning of the corpus. Items are
planted verbatim, so that speed is not the speed of overlooking. The peers' rules are kept, but for what the notes say.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Table, fresh, peak_rss_mb

DATA = Path(__file__).parents[2] / "shared" / "data"
N = 13
BATCH_BYTES = 1 << 20
PLANT_EVERY = 100
"""Documents per planted item."""
ONE_CORE = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}

Flag = Callable[[Sequence[str]], int]
"""Scans documents and says how many it would flag."""


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate on its share of the corpus."""

    candidate: str
    grams: str
    megabytes: float
    cpu_s: float
    found: str
    """Planted documents found, of how many."""
    peak_mb: float
    """Resident memory of its process at its highest, corpus included."""

    @property
    def megabytes_per_s(self) -> float:
        """Megabytes of UTF-8 text per CPU second."""
        return self.megabytes / self.cpu_s


# -- the work ------------------------------------------------------------------------------------------------------


def corpus() -> tuple[str, list[str], list[str]]:
    """Name, documents and benchmark items.

    T0's training sample against GSM8K and HumanEval where they are at hand, else Python's own sources against stretches
    of some of them.
    """
    sample = DATA / "corpora" / "t0_sample.jsonl.gz"
    if sample.exists():
        documents = [f"{row['prompt']}\n{row['completion']}" for row in _rows(sample)]
        items = [f"{row['question']}\n{row['answer']}" for row in _rows(DATA / "benchmarks" / "gsm8k_test.jsonl")]
        problems = _rows(DATA / "benchmarks" / "humaneval.jsonl.gz")
        items += [row["prompt"] + row["canonical_solution"] for row in problems]
        return "T0 training sample x GSM8K and HumanEval", documents, items
    sources = [path.read_text(errors="replace") for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))]
    lines = [text.splitlines() for text in sources[::5]]
    items = ["\n".join(found[at : at + 12]) for found in lines for at in range(0, len(found) - 12, 40)][:1_500]
    return "Python's sources x stretches of them", [text for k, text in enumerate(sources) if k % 5], items


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


def planted(documents: Sequence[str], items: Sequence[str], megabytes: float) -> tuple[list[str], int]:
    """The first documents of so many megabytes, every PLANT_EVERY-th with an item appended; the number of these."""
    kept, count, size = [], 0, 0
    for number, text in enumerate(documents):
        if number % PLANT_EVERY == 0:
            text, count = f"{text}\n{items[count % len(items)]}", count + 1
        kept.append(text)
        size += len(text)
        if size >= megabytes * 1e6:
            break
    return kept, count


# -- candidates: index the items, return the scan ------------------------------------------------------------------


def ours(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """All of it: words, n = 3, 5, 8 and 13, counts per gram, windows verified on the text, the table of pairs."""
    from checks.contamination.detect.exact import ExactScanner
    from checks.contamination.detect.index import NgramIndex
    from checks.contamination.records import Item
    from checks.contamination.text.words import split_words

    index = NgramIndex.build([Item("bench", str(k), {"question": text}) for k, text in enumerate(items)])
    batches = _batches(documents)

    def scan(_: Sequence[str]) -> int:
        scanner, found = ExactScanner(index), 0
        for docs in batches:
            pairs = scanner.scan(docs, split_words(docs.text, docs.offsets))
            found += len(set(pairs["record"].to_pylist()))
        return found

    return scan


def words_only(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """The splitter alone: what all detectors share."""
    from checks.contamination.text.words import split_words

    batches = _batches(documents)
    return lambda _: sum(len(split_words(docs.text, docs.offsets)) for docs in batches)


def _batches(documents: Sequence[str]) -> list[Any]:
    from checks.contamination.records import Documents

    found, waiting, size = [], [], 0
    for number, text in enumerate(documents):
        waiting.append((number, text.encode()))
        size += len(waiting[-1][1])
        if size >= BATCH_BYTES or number == len(documents) - 1:
            numbers, raw = zip(*waiting, strict=True)
            offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
            found.append(Documents(np.frombuffer(b"".join(raw), np.uint8), offsets, np.array(numbers),
                                   np.full(len(raw), -1), np.zeros(len(raw), np.int64)))
            waiting, size = [], 0
    return found


def datatrove(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """NGramsDecontFilter on an index of its own hashes, without its loader of task sets."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer

    class Split(WhitespaceTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    config = NGramsDecontConfig(n_grams=N)
    with tempfile.TemporaryDirectory() as folder:
        step = NGramsDecontFilter(folder, config, language=Split())  # type: ignore[arg-type]
        hashes = {step.hash_func(" ".join(gram)) for text in items
                  for gram in ngrams(simplify_text(text, config.norm_config).split(), N)}
        np.array(sorted(hashes), config.hash_config.np_descr).tofile(Path(folder) / "bench.index.hashes")
        step.load_index_hashes()
    return lambda texts: sum(step.filter(Document(text=text, id="0")) is not True for text in texts)


def janitor(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """lm-evaluation-harness's Janitor in Python mode, from the file, as its package needs much else."""
    package = importlib.util.find_spec("lm_eval")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'lm_eval'")
    spec = importlib.util.spec_from_file_location("janitor", Path(package.origin).parent / "decontamination/janitor.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        spec.loader.exec_module(module)  # it prints that its C++ part is not there
    cleaner = module.Janitor(ngram_n=N)
    for text in items:
        cleaner.register_contaminant_python(text)
    least = cleaner.minimum_slice_length  # shorter documents come back empty, clean or not
    return lambda texts: sum(cleaner.clean_python(text) != ([text] if len(text) >= least else []) for text in texts)


def open_r1(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """Any lower-cased 8-gram of words between white space in a set.

    The rule of huggingface/open-r1 scripts/decontaminate.py and of simplescaling/s1 data/decontaminate_util.py.
    """

    def grams(text: str) -> set[str]:
        words = text.lower().split()
        return {" ".join(words[k : k + 8]) for k in range(len(words) - 7)}

    known = set().union(*map(grams, items))
    return lambda texts: sum(not known.isdisjoint(grams(text)) for text in texts)


def polars(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """13-grams as hashes in pure expressions, then a semi join."""
    import polars as pl

    def grams(texts: Sequence[str]) -> Any:
        text = pl.col("text").str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}_]+", " ")
        words = text.str.strip_chars().str.split(" ")
        frame = pl.LazyFrame({"text": texts}).with_row_index("doc").select("doc", words.alias("word")).explode("word")
        hashed = frame.select("doc", pl.col("word").hash().alias("h"))
        polynomial = pl.lit(0, pl.UInt64)
        for k in range(N):
            polynomial = polynomial * pl.lit(0x9E3779B1, pl.UInt64) + pl.col("h").shift(-k)
        whole = pl.col("doc") == pl.col("doc").shift(1 - N)
        hashed = hashed.select("doc", polynomial.alias("gram"), whole.alias("whole"))
        return hashed.filter("whole").select("doc", "gram")

    known = grams(items).select("gram").unique().collect()

    def scan(texts: Sequence[str]) -> int:
        found = grams(texts).join(known.lazy(), on="gram", how="semi").select(pl.col("doc").n_unique())
        return int(found.collect().item())

    return scan


def aho_corasick(items: Sequence[str], documents: Sequence[str]) -> Flag:
    """The automaton of pyahocorasick over all 13-grams as strings of normalised words."""
    import re

    import ahocorasick

    word = re.compile(r"\w+")
    automaton = ahocorasick.Automaton()
    for text in items:
        words = word.findall(text.lower())
        for k in range(len(words) - N + 1):
            automaton.add_word(f" {' '.join(words[k : k + N])} ", 1)
    automaton.make_automaton()

    def hit(text: str) -> bool:
        return any(True for _ in automaton.iter(f" {' '.join(word.findall(text.lower()))} "))

    return lambda texts: sum(map(hit, texts))


CANDIDATES: dict[str, tuple[str, float, int, Callable[[Sequence[str], Sequence[str]], Flag]]] = {
    "TrainVitals, exact detector": ("3, 5, 8, 13", 25, 5, ours),
    "TrainVitals, words alone": ("-", 25, 5, words_only),
    "Polars, expressions and semi join": ("13", 25, 3, polars),
    "open-r1 / s1 loop": ("8", 10, 2, open_r1),
    "pyahocorasick": ("13", 6, 2, aho_corasick),
    "lm-eval Janitor, Python": ("13", 3, 1, janitor),
    "datatrove NGramsDecontFilter": ("13", 1.5, 1, datatrove),
}
"""Name: n, megabytes of corpus, repeats, scan."""


def measure(candidate: str, scale: float) -> Row:
    """Time one candidate in this process."""
    grams, megabytes, repeats, build = CANDIDATES[candidate]
    _, documents, items = corpus()
    texts, count = planted(documents, items, megabytes * scale)
    del documents
    scan = build(items, texts)
    scan(texts[:PLANT_EVERY])
    took = []
    for _ in range(repeats):
        began = time.process_time()
        found = scan(texts)
        took.append(time.process_time() - began)
    size = sum(len(text.encode()) for text in texts) / 1e6
    told = "-" if grams == "-" else f"{found} of {count}"
    return Row(candidate, grams, size, min(took), told, peak_rss_mb())


def word_count(scale: float) -> Row:
    """`wc -w` on the same text as a file: reading and finding white space, the floor."""
    texts, _ = planted(*corpus()[1:], 25 * scale)
    with tempfile.NamedTemporaryFile() as file:
        file.write("\n".join(texts).encode())
        file.flush()
        took = []
        for _ in range(3):
            began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            subprocess.run(["wc", "-w", file.name], check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"})
            took.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began)
        size = file.tell() / 1e6
    return Row("wc -w (the floor)", "-", size, min(took), "-", 0)


def exact_rows(scale: float) -> list[Row]:
    """All candidates that are installed, each in a process of its own, and `wc -w`."""
    rows = []
    for candidate in CANDIDATES:
        found = fresh("benchmarks.contamination", candidate, scale, env=ONE_CORE)
        rows.append(Row(**found) if "cpu_s" in found else Row(f"{candidate}: {found['missing']}", "", 0, 1, "", 0))
    return [*rows, word_count(scale)]


def exact_table(rows: Sequence[Row]) -> Table:
    """The comparison, faster first."""
    ordered = sorted(rows, key=lambda row: -row.megabytes_per_s)
    cells: list[Sequence[str]] = [
        [row.candidate, row.grams, f"{row.megabytes:.1f}", f"{row.megabytes_per_s:,.1f}", row.found,
         f"{row.peak_mb:,.0f}" if row.peak_mb else "-"] for row in ordered
    ]
    name, _, items = corpus()
    return Table(
        f"Exact n-grams: {name} ({len(items):,} items)",
        ["candidate", "n", "MB of text", "MB/s and core", "planted found", "peak memory, MB"],
        cells,
        notes="Index built and text in memory before the clock starts. Ours gives, besides the verdict on a document, "
              "the items, windows, verified bits per gram and document counts per gram; the others say yes or no. What "
              "they flag beside the planted documents counts as found, too. datatrove gets a split at white space in "
              "place of spaCy's tokenizer, and hashes made with its own functions.",
    )


def start_table() -> Table:
    """What the first scan of a process costs, with and without compiled kernels on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        cells: list[Sequence[str]] = []
        for label in ("kernels compiled, once per machine and version", "kernels on the disk"):
            found = fresh("benchmarks.contamination", "start", 0, env={"NUMBA_CACHE_DIR": folder})
            cells.append([label, f"{found['import_s']:.1f}", f"{found['first_s']:.1f}"])
    return Table("Start of a process", ["", "imports, CPU s", "first index and scan, CPU s"], cells)


def start() -> dict[str, float]:
    """Import, build a small index, scan a document that holds an item."""
    began = time.process_time()
    import checks.contamination.detect.exact  # noqa: F401

    imported = time.process_time()
    text = " ".join(f"word{k}" for k in range(60))
    ours([text], [text])([text])
    return {"import_s": imported - began, "first_s": time.process_time() - imported}


def run(quick: bool) -> list[Table]:
    """The exact scan, its start, and the other detectors."""
    # Here, for the candidates' processes need none of it.
    from benchmarks import contamination_engines, contamination_minhash

    return [exact_table(exact_rows(0.2 if quick else 1.0)), start_table(), *contamination_minhash.run(quick),
            *contamination_engines.run(quick)]


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if sys.argv[1] == "start":
        print(json.dumps(start()))
    else:
        try:
            print(json.dumps(asdict(measure(sys.argv[1], float(sys.argv[2])))))
        except ModuleNotFoundError as error:
            print(json.dumps({"missing": f"{error.name or error} is not installed"}))
