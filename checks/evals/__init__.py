"""Evals of checkpoints: what changed between two of them, which items, and whether that is safe, fast and cheap."""
