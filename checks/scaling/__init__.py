"""Scaling laws: fits of L(N, D) with honest uncertainty, plans of compute, and forecasts of a run's final loss."""
