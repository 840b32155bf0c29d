"""Step time, data wait, stragglers."""
