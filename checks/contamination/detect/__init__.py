"""Detectors: exact n-grams, windowed MinHash, neighbours in meaning. They find places, never what these mean."""
