"""The report's own paragraphs."""

from __future__ import annotations

RECALL = (
    "Known items were planted in a copy of a sample of this corpus, each edited in one way, and the audit was run "
    "on it. Each cell is the share that the detector found, with its 95 % interval."
)
SCORES = (
    "Llama-2 Z holds a subset against the whole that contains it and takes both as equally hard: above 2 is called "
    "significant there, but contaminated items are often easier. The subsets share items, so only contaminated "
    "against clean is tested. “Beyond controls” is the gap less the gap of models that never saw the data, on the "
    "same items; its p, by permutation and adjusted after Holm over the benchmarks, is the one to judge by. "
    "Untestable items count in “all” and in nothing else."
)
SWEEP = (
    "Gain is the score of all testable items less the score of those below the threshold: what the flagged items "
    "add. Believe in a gain that lasts over many thresholds and that control models do not show; the largest of "
    "many is too large by selection. Shaded is the 95 % interval of the first model. After ConTAM, arXiv "
    "2411.03923."
)
RULES = (
    "“Any n-gram” flags an item of which one run of n words occurs anywhere (13: GPT-3 and lm-eval; 8: many small "
    "scripts), out of the items that are long enough. “70 % of 8-grams” is PaLM's rule. They count boilerplate as "
    "leaks and cannot see short items, which is why no verdict here rests on them."
)
METHOD = (
    (
        "Search",
        "Text is split into words; case, accents, punctuation and white space do not count. Every run of 3, 5, 8 "
        "and 13 words of every item is looked up in every document, and hits are verified on the text. Windowed "
        "MinHash looks for edited copies, nearest neighbours for other wordings.",
    ),
    (
        "Contaminated",
        "One window of one document holds the item: the share of its 5-word runs found there, rare ones weighing "
        "more, reaches a cut that falls with the item's length; short items must be there whole.",
    ),
    (
        "Suspect",
        "Part of the item, an edited copy, its passage alone, or a neighbour in meaning. Similar meaning alone "
        "never makes an item contaminated: a person or a judge decides.",
    ),
    (
        "Untestable",
        "Too short, or made of runs that occur in many documents; or nothing was found and too little of the text "
        "was searched. Silence about these items proves nothing: they count neither as clean nor as contaminated.",
    ),
    (
        "Clean",
        "No match found in what was searched. That is never “clean in general”: other text, other wordings and "
        "translations may hold the item.",
    ),
    (
        "Score to trust",
        "The score of the clean items, once an item is contaminated. Intervals are Wilson's for right or wrong "
        "answers and bootstrap for graded ones; they say how far other items of this kind might move the score.",
    ),
    (
        "Cleaned benchmark",
        "clean/*.jsonl holds every item that is not contaminated. Suspect and untestable items stay in it, because "
        "nothing is proven against them.",
    ),
)
