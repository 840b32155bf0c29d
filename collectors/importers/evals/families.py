"""What a task tests, by its name: as the harnesses' own task lists group them. Unknown names stay unknown."""

from __future__ import annotations

import re

_FAMILIES = (
    ("jailbreak", r"jailbreak|advbench|harmbench|strongreject|wildjailbreak|agentharm"),
    ("harmful content", r"toxi|realtoxic|harmful|do_?not_?answer|xstest|or_?bench"),
    ("secrets", r"leak|secret|canary|social_?engineering|prompt_?injection"),
    ("hallucination", r"truthfulqa|halu|hallucination|factscore|simpleqa"),
    ("privacy", r"privacy|pii"),
    ("bias", r"crows_?pairs|bbq|winobias|stereoset|discrim"),
    ("code", r"humaneval|mbpp|code|bigcodebench|swe|apps\b|livecode"),
    ("math", r"gsm|math|aime|mgsm|arith|asdiv|sums"),
    ("long context", r"ruler|longbench|needle|niah|scrolls|infinitebench"),
    ("agentic workflow", r"agent|tool|bfcl|tau_?bench|webarena|gaia|osworld"),
    ("multilingual", r"xnli|xcopa|xstory|flores|tydi|belebele|mmmlu|multilingual|okapi"),
    ("knowledge", r"mmlu|hendrycks|trivia|nq_open|naturalqs|gpqa|sciq|openbook|webqs"),
    ("reasoning", r"arc|hellaswag|winogrande|piqa|bbh|bigbench|logiqa|copa|boolq|lambada|drop|wsc|reason"),
)


def family_of(task: str) -> str:
    """The family; "" where the name tells none."""
    name = task.lower()
    return next((family for family, words in _FAMILIES if re.search(words, name)), "")
