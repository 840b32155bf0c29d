"""Step time, data wait, stragglers; one file per check. Never judges what is learned."""
