"""How many UTF-8 bytes each token id stands for, and of which script, worked out once per tokenizer.

With this table, bytes and scripts of any amount of text are its token counts times the table: nothing is decoded
while training runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainvitals.spelling import SCRIPTS, script_bytes, speller


def script_table(tokenizer: Any, vocab_size: int) -> NDArray[np.float64]:
    """UTF-8 bytes per token id and script, [vocab_size, len(SCRIPTS)]; special tokens stand for no text.

    Args:
        tokenizer: of transformers (fast or slow) or of the `tokenizers` library.
        vocab_size: rows of the table; ids that the tokenizer does not know get zeros.
    """
    table = np.zeros((vocab_size, len(SCRIPTS)))
    tokens = _tokens(tokenizer, vocab_size)
    as_bytes = speller(tokens)
    for i, token in enumerate(tokens):
        if token:
            table[i] = script_bytes(as_bytes(token))
    return table


def token_labels(tokenizer: Any, vocab_size: int) -> list[str]:
    """A distinct label for every token id: the id and, where a tokenizer knows it, how the vocabulary spells it."""
    spelled = [] if tokenizer is None else _tokens(tokenizer, vocab_size)
    return [f"{i} {spelled[i]}" if i < len(spelled) and spelled[i] else str(i) for i in range(vocab_size)]


def _tokens(tokenizer: Any, vocab_size: int) -> list[str | None]:
    """Every id's token as the vocabulary spells it; None for special and unknown ids."""
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        known = min(len(tokenizer), vocab_size)
        tokens = tokenizer.convert_ids_to_tokens(list(range(known)))
        special = set(tokenizer.all_special_ids)
    else:
        known = min(tokenizer.get_vocab_size(), vocab_size)
        tokens = [tokenizer.id_to_token(i) for i in range(known)]
        special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return [None if i in special else token for i, token in enumerate(tokens)]
