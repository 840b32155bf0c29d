"""Scaling: is this run on its curve, where will it end, and what should have been trained."""

from dashboard.scaling_page import page

page()
