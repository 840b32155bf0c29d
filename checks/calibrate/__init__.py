"""Thresholds fitted to a user's own healthy runs, and how far so many steps can carry them."""
