"""Runs on the same data: which ones are, how they line up, and what one says of the other."""
