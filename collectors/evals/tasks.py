"""What is asked in the loop: text to be likely, choices to be told apart, and answers to be given word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainvitals.errors import UsageError


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a domain."""

    text: str
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A beginning, ways to go on, and which of them is right (from 0)."""

    prompt: str
    choices: tuple[str, ...]
    right: int
    group: str = ""
    """A slice to look at."""
    cluster: str = ""
    """What questions share that makes them no independent ones: a passage, a subject."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and the answer that must follow it, up to white space around it."""

    prompt: str
    answer: str
    group: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Mean negative log-likelihood of each text, nats per token; its exponential is the perplexity."""

    name: str
    items: Sequence[Text]
    family: str = ""

    def __post_init__(self) -> None:
        _refuse_empty(self.name, len(self.items))


@dataclass(frozen=True, slots=True)
class MultipleChoice:
    """The choice with the highest log-likelihood per byte, as lm-evaluation-harness's `acc_norm`."""

    name: str
    items: Sequence[Question]
    family: str = ""

    def __post_init__(self) -> None:
        _refuse_empty(self.name, len(self.items))
        for number, one in enumerate(self.items):
            if not 0 <= one.right < len(one.choices) or len(one.choices) < 2 or not all(one.choices):
                raise UsageError(f"Question {number} of {self.name!r:.60} has {len(one.choices)} choices, of which "
                                 f"{one.right} is right: it needs two that are not empty, and one of them, from 0.")


@dataclass(frozen=True, slots=True)
class Exact:
    """Greedy answers of at most `most_tokens` tokens; right where they begin with the answer."""

    name: str
    items: Sequence[Prompt]
    most_tokens: int = 16
    family: str = ""

    def __post_init__(self) -> None:
        _refuse_empty(self.name, len(self.items))
        if not 1 <= self.most_tokens <= 1024:
            raise UsageError(f"{self.name!r:.60} asks for {self.most_tokens} tokens; give 1 to 1,024.")


@dataclass(frozen=True, slots=True)
class NextToken:
    """Is the likeliest next token the one that follows? An item is a token of a text; a text is a cluster of them."""

    name: str
    items: Sequence[Text]
    family: str = ""

    def __post_init__(self) -> None:
        _refuse_empty(self.name, len(self.items))


Task = Perplexity | MultipleChoice | Exact | NextToken


def _refuse_empty(name: str, items: int) -> None:
    if not name or not items:
        raise UsageError(f"The task {name!r:.60} has {items} items. Give a name and one item at the least.")
