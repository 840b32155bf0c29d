"""Taps on live training jobs: one file per signal family, trainer integrations, importers of foreign logs."""
