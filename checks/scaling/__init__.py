"""Scaling laws: fits of L(N, D) with honest uncertainty, plans of compute, forecasts. Never a guess without a band."""
