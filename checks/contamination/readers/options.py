"""What a user may say about a corpus; everything has a working default."""

from __future__ import annotations

from dataclasses import dataclass

from trainvitals.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusOptions:
    """How corpora are cut into slices and where their text is."""

    text_columns: tuple[str, ...] = ()
    """Columns that hold the text, joined by a line break; empty to guess (`fields.TEXT_COLUMNS`)."""
    id_column: str = ""
    """Column that holds a document's own id; empty to guess (`fields.ID_COLUMNS`)."""
    tokenizer: str = ""
    """tokenizer.json (or its folder) of pre-tokenised shards."""
    token_dtype: str = ""
    """uint16 or uint32, of raw .bin shards; empty for the smallest that holds the vocabulary."""
    eos: str = ""
    """Token that ends a document in pre-tokenised shards; empty to guess from the tokenizer."""
    slice_bytes: int = 128 << 20
    """Bytes of a plain JSONL or Parquet shard that one worker reads in one go."""
    line_limit: int = 16 << 20
    """Bytes of one line above which it is scanned as raw text in pieces: bounds the memory."""

    def __post_init__(self) -> None:
        if self.token_dtype not in ("", "uint16", "uint32"):
            raise UsageError(f"Token type {self.token_dtype!r} is not known. Use uint16 or uint32.")
        if self.slice_bytes < 1 or self.line_limit < 1:
            raise UsageError("slice_bytes and line_limit must be positive numbers of bytes.")
