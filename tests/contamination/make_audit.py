"""A made-up audit folder with everything in it: for the report and the page, without any scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import norm

from checks.contamination.records import DETECTORS, ITEMS, MATCHES, VERDICTS
from checks.contamination.score.decision import decide
from checks.contamination.score.effect import contaminated_share, measure
from checks.contamination.score.scores import COLUMNS, ScoreTable, match_scores
from checks.contamination.score.sweep import sweep

HOSTILE = (
    "<script>window.__xss = 1; alert(1)</script>",
    '"><img src=x onerror="window.__xss = 2"> </td></table></body>',
    "</style><svg onload=alert(3)> {{ 7 * 7 }} ${window.__xss = 3} <!-- ]]>",
    "invoice \u202efdp.exe\u202c, bell \x07, escape \x1b[31m, zero\u200bwidth, tag \U000e0041, e\u0301\u0300\u0323" * 3,
    "=cmd|' /C calc'!A0",
)
HUGE = "never_a_space_" * 20_000
_NAMES = ("Amira", "Bo", "Chiara", "Dmitri", "Esi", "Farid", "Greta", "Hana")
_THINGS = ("pears", "stamps", "candles", "tickets", "tiles", "notebooks", "bulbs", "marbles")
_PLACES = ("market", "harbour", "library", "workshop", "orchard", "station")
_WEB = (
    "Posted by tutor42 on 3 May. Today we go through last week's homework, which many of you found hard. ",
    "Welcome back to the maths corner! Every Friday we publish a problem that our readers sent in. ",
    "Page 17 of 40. Chapter four: several steps at once. Read slowly and write every number down. ",
)
_MODELS = (("board-7b", False, 0.60, 0.33), ("board-7b-early", False, 0.48, 0.06), ("control-7b", True, 0.57, 0.05))
"""Name, whether a control, chance to solve a clean item, and how much higher it is for a contaminated one."""


def make_audit(
    folder: Path, n_items: int = 1319, seed: int = 0, *, hostile: bool = False, scores: bool = True, inject: bool = True
) -> Path:
    """Write items.parquet, matches.parquet, sweep.parquet and audit.json of three benchmarks into the folder.

    The first has `n_items` items of which 3 % are contaminated, the second suspects only, the third nothing. With
    `hostile`, strings that attack a page, a spreadsheet or a layout stand in texts, names, ids, rules and problems.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    plan = {
        "gsm8k_made": _plan(
            n_items, contaminated=max(2, round(0.03 * n_items)), suspect=max(5, n_items // 60), untestable=n_items // 90
        ),
        "code_made": _plan(164, suspect=9, untestable=6),
        "trivia_made": _plan(400, untestable=21),
    }
    items: list[dict[str, Any]] = []
    matches: list[dict[str, Any]] = []
    for name, verdicts in plan.items():
        for number, verdict in enumerate(rng.permutation(verdicts)):
            item, found = _item(rng, name, number, str(verdict))
            items.append(item)
            matches += found
    if hostile:
        _spoil(items, matches)
    frame = pd.DataFrame(items, columns=ITEMS.names)
    matched = match_scores(frame, _scores(rng, frame) if scores else ScoreTable(pd.DataFrame(columns=COLUMNS), ()))
    pq.write_table(pa.Table.from_pylist(items, ITEMS), folder / "items.parquet")
    matches.sort(key=lambda m: (m["benchmark"], m["item_id"], m["detector"], m["rank"]))
    pq.write_table(pa.Table.from_pylist(matches, MATCHES), folder / "matches.parquet")
    pq.write_table(sweep(frame, matched), folder / "sweep.parquet")
    effects = {name: [e.to_json() for e in found] for name, found in measure(matched, seed=seed).items()}
    audit = _audit(frame, effects, seed, hostile=hostile, inject=inject)
    (folder / "audit.json").write_text(json.dumps(audit, indent=1, allow_nan=False), encoding="utf-8")
    return folder


def _plan(n: int, **verdicts: int) -> list[str]:
    marked = [verdict for verdict, count in verdicts.items() for _ in range(count)]
    return marked + ["clean"] * (n - len(marked))


def _item(
    rng: np.random.Generator, name: str, number: int, verdict: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    question, answer = _problem(rng)
    text = "1 2 3 4" if verdict == "untestable" else f"question: {question}\nanswer: {answer}"
    item: dict[str, Any] = dict.fromkeys(ITEMS.names)
    item |= {
        "benchmark": name,
        "item_id": str(number),
        "verdict": verdict,
        "evidence_kind": "",
        "rule": "no shared 5-gram",
        "score": float(rng.choice([0.0, 0.0, 0.04, 0.11, 0.2])),
        "documents": 0,
        "longest": int(rng.integers(0, 7)),
        "words": len(question.split()),
        "any3": True,
        "any5": bool(rng.random() < 0.3),
        "any8": verdict == "contaminated",
        "any13": verdict == "contaminated" and bool(rng.random() < 0.8),
        "covered8": 0.0,
        "judge": "",
        "text": text,
        "nearest_document": "web-00001.jsonl.gz#7",
        "nearest_similarity": float(rng.uniform(0.2, 0.6)),
        "nearest_p": float(rng.uniform(0.05, 1)),
    }
    if verdict == "untestable":
        short = bool(rng.random() < 0.7)
        rule = (
            "4 words: below the 5 that a window needs"
            if short
            else "each of its 5-grams occurs in over 0.5 % of documents"
        )
        item |= {"rule": rule, "any8": None, "any13": None, "score": 0.0}
    if verdict not in ("contaminated", "suspect"):
        return item, []
    kinds = (
        ("question and answer", "question only")
        if verdict == "contaminated"
        else ("edited numbers", "edited copy", "template", "passage only", "similar meaning")
    )
    kind = kinds[int(rng.integers(len(kinds)))]
    found = [_match(rng, item, kind, question, answer, rank) for rank in range(1, int(rng.integers(2, 5)))]
    best = found[0]
    share = best["score"]
    item |= {
        "evidence_kind": kind,
        "score": share,
        "best_document": best["document"],
        "detector": best["detector"],
        "documents": len(found),
        "longest": best["longest"],
        "covered8": share,
        "rule": f"{share:.2f} of the weighted 5-grams in one window; {0.86 if verdict == 'contaminated' else 0.5} is "
        f"asked of {len(question.split())} words",
    }
    return item, found


def _problem(rng: np.random.Generator) -> tuple[str, str]:
    who, other = rng.choice(_NAMES, 2, replace=False)
    thing, place = rng.choice(_THINGS), rng.choice(_PLACES)
    a, b, c = (int(n) for n in rng.integers(3, 60, 3))
    question = (
        f"{who} buys {a} boxes of {thing} at the {place} and each box holds {b} of them. After giving {c} {thing} to "
        f"{other}, how many {thing} does {who} have left?"
    )
    return (
        question,
        f"{who} starts with {a} * {b} = {a * b} {thing}. Then {a * b} - {c} = {a * b - c}. #### {a * b - c}",
    )


def _match(
    rng: np.random.Generator, item: dict[str, Any], kind: str, question: str, answer: str, rank: int
) -> dict[str, Any]:
    before, after = str(rng.choice(_WEB)), "\n\nWe post the next one on Monday. Comments are open below."
    body, cut = question, len(question)
    if kind in ("edited numbers", "edited copy", "similar meaning"):
        cut = question.index(" and each")
        body = question[:cut] + ", in every box another count," + question[cut + len(" and each box holds") :]
    shift = len(question) - len(body)
    start, lead = len(before), len("question: ")
    spans, item_spans = [[start, start + cut]], [[lead, lead + cut]]
    if shift:
        rest = len(before) + len(body) - 60
        spans.append([rest, rest + 60])
        item_spans.append([lead + len(question) - 60, lead + len(question)])
    text = before + body
    if kind == "question and answer":
        spans.append([len(text) + 9, len(text) + 9 + len(answer)])
        item_spans.append([item["text"].index("answer: ") + 8, len(item["text"])])
        text += "\nAnswer: " + answer
    shard, record = f"web-{int(rng.integers(4)):05d}.jsonl.gz", int(rng.integers(0, 900_000)) * 8 + rank
    solid = item["verdict"] == "contaminated"
    detector = "semantic" if kind == "similar meaning" else "minhash" if kind == "edited copy" else "exact"
    offset = record * 3_417
    return {
        "benchmark": item["benchmark"],
        "item_id": item["item_id"],
        "document": f"{shard}#{record}",
        "shard": shard,
        "record": record,
        "byte_offset": offset,
        "document_id": f"https://example.org/post/{record}" if rank == 1 else None,
        "detector": detector,
        "rank": rank,
        "level": item["verdict"],
        "evidence_kind": kind,
        "score": float(rng.uniform(0.9, 1.0) if solid else rng.uniform(0.5, 0.84)) / rank**0.1,
        "similarity": float(rng.uniform(0.7, 0.95)) if detector != "exact" else None,
        "p": float(rng.uniform(0.0005, 0.01)) if detector == "semantic" else None,
        "longest": len(body.split()) if solid else 11,
        "start": 4_096,
        "end": 4_096 + len(text),
        "text": text + after,
        "spans": spans,
        "item_spans": item_spans,
    }


def _spoil(items: list[dict[str, Any]], matches: list[dict[str, Any]]) -> None:
    """Put an attack into each place that a stranger fills in."""
    marked = [item for item in items if item["verdict"] in ("contaminated", "suspect", "untestable")]
    for item, attack in zip(marked, (*HOSTILE, HUGE) * 3, strict=False):
        own = [m for m in matches if (m["benchmark"], m["item_id"]) == (item["benchmark"], item["item_id"])]
        item["text"] = attack + "\n" + item["text"]
        item["item_id"] += attack[:200]
        item["rule"] = f"{attack[:200]} {item['rule']}"
        for match in own:
            shift = len(match["text"]) // 2
            match |= {
                "item_id": item["item_id"],
                "text": match["text"][:shift] + attack + match["text"][shift:],
                "document_id": attack[:300],
                "shard": attack[:40] + match["shard"],
                "document": attack[:40] + match["document"],
                # Spans as a broken scanner might leave them: out of order, overlapping, beyond the text.
                "spans": [*match["spans"][::-1], [3, 9], [5, 2], [10**6, 10**6 + 5]],
            }
        if own:
            item["best_document"] = own[0]["document"]


def _scores(rng: np.random.Generator, items: pd.DataFrame) -> ScoreTable:
    parts = []
    ease = rng.normal(size=len(items))
    for model, control, base, leak in _MODELS:
        chance = np.where(items["verdict"] == "contaminated", base + leak, base)
        # Models agree on what is hard: each solves an item whose ease, seen with its own noise, is high enough.
        seen = norm.cdf((2 * ease + rng.normal(size=len(items))) / np.sqrt(5))
        parts.append(
            pd.DataFrame(
                {
                    "source": f"{model}.jsonl",
                    "model": model,
                    "control": control,
                    "benchmark": items["benchmark"],
                    "named": True,
                    "positional": False,
                    "item_id": items["item_id"],
                    "score": (seen > 1 - chance).astype(float),
                    "text": "",
                }
            )
        )
    return ScoreTable(pd.concat(parts)[COLUMNS], ())


def _audit(
    items: pd.DataFrame, effects: dict[str, list[dict[str, Any]]], seed: int, *, hostile: bool, inject: bool
) -> dict[str, Any]:
    shards = [
        {
            "shard": f"web-{i:05d}.jsonl.gz",
            "kind": "jsonl",
            "bytes": 912_345_678 + i,
            "sha256": f"{i + 10:064x}",
            "records": 1_800_000,
            "documents": 1_799_990,
            "skipped": 10,
            "text_bytes": 3_100_000_000 + i,
        }
        for i in range(4)
    ]
    problems = [
        {"source": s["shard"], "place": "10 lines", "what": "Blank lines hold no document.", "records": 0}
        for s in shards
    ]
    if hostile:
        problems += [{"source": a, "place": f"line 3, {a}"[:300], "what": a, "records": 1} for a in (*HOSTILE, HUGE)]
    totals = {key: sum(s[key] for s in shards) for key in ("records", "documents", "skipped", "text_bytes")}
    audit: dict[str, Any] = {
        "format": 1,
        "tool": {"name": "trainvitals", "version": "0.2.0"},
        "seed": seed,
        "searched": f"Searched were {totals['documents']:,} documents in {len(shards)} shards. What was not found was "
        "not found there: that is no proof for any other text.",
        "corpus": {
            "sha256": f"{12345:064x}",
            **totals,
            "bytes_read": sum(s["bytes"] for s in shards),
            "shards": shards,
            "lost_slices": 0,
            "matches_cut": 0,
            "problems": problems,
        },
        "benchmarks": [
            _benchmark(name, part, effects.get(str(name), [])) for name, part in items.groupby("benchmark", sort=False)
        ],
        "thresholds": {
            "contaminated_up_to_10_words": 1.0,
            "contaminated_from_30_words": 0.8,
            "suspect": 0.5,
            "common_gram_documents": 0.005,
            "minhash_jaccard": 0.35,
            "semantic_p": 0.01,
        },
        "detectors": {
            "exact": {"n": [3, 5, 8, 13]},
            "minhash": {"permutations": 128, "scheme": "affine32"},
            "semantic": {"model": "tfidf"},
        },
        "score_problems": [],
        "versions": {"python": "3.11.13", "numpy": "2.4.0", "pyarrow": "26.0.0", "datasketch": "2.0.0"},
        "inject": _inject() if inject else None,
    }
    if hostile:
        audit["score_problems"] = [{"source": HOSTILE[1], "place": HOSTILE[0], "what": HOSTILE[2], "records": 1}]
        audit["versions"][HOSTILE[1]] = HOSTILE[0]
    decision = decide(audit)
    audit["decision"] = {"level": decision.level, "sentence": decision.sentence}
    return audit


def _benchmark(name: object, items: pd.DataFrame, scores: list[dict[str, Any]]) -> dict[str, Any]:
    verdicts = {v: int((items["verdict"] == v).sum()) for v in VERDICTS}
    eligible = len(items) - verdicts["untestable"]
    kinds = items.loc[items["evidence_kind"] != "", "evidence_kind"].value_counts()
    return {
        "name": name,
        "source": f"{name}.jsonl",
        "sha256": f"{len(items):064x}",
        "items": len(items),
        "roles": {"question": "question", "answer": "answer"},
        "verdicts": verdicts,
        "eligible": eligible,
        "share": contaminated_share(verdicts["contaminated"], eligible),
        "kinds": {str(kind): int(n) for kind, n in kinds.items()},
        "any_hit": {n: int(items[f"any{n}"].fillna(False).astype(bool).sum()) for n in ("3", "5", "8", "13")},
        "covered8": int((items["covered8"] >= 0.7).sum()),
        "eligible_n": {n: int(items[f"any{n}"].notna().sum()) for n in ("3", "5", "8", "13")},
        "scores": scores,
        "problems": [],
    }


def _inject() -> dict[str, Any]:
    found = {
        "verbatim": (200, 0, 0, 0, 200),
        "re-wrapped": (200, 0, 0, 0, 200),
        "padded": (200, 0, 0, 2, 200),
        "numbers changed": (193, 188, 0, 60, 195),
        "distractor added": (186, 179, 0, 71, 191),
        "clauses reversed": (141, 152, 0, 83, 178),
        "word-substituted paraphrase": (2, 3, 0, 171, 172),
    }
    table = []
    for edit, counts in found.items():
        for detector, n in zip((*DETECTORS, "any"), counts, strict=True):
            share = contaminated_share(n, 200)
            interval = {"recall": share["value"], "low": share["low"], "high": share["high"]}
            exact = n if detector == "exact" and edit in ("verbatim", "re-wrapped", "padded") else 0
            counted = {"planted": 200, "found": n, "contaminated": exact}
            table.append({"edit": edit, "detector": detector, **counted, **interval})
    alarms = {"items": 1400, "contaminated": 0, "suspect": 3, **contaminated_share(3, 1400)}
    return {"sample": 2000, "table": table, "false_alarms": alarms}
