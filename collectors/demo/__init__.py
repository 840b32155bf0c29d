"""The demo: a small mixture of experts that trains on this machine, with one real fault in it."""
