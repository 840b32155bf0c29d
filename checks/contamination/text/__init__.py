"""Words, folded letters and compiled loops that all detectors share; no file is read here and nothing is judged."""
