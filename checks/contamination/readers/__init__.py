"""Readers of corpora and benchmarks: each names everything it could not use, and none looks for matches."""
