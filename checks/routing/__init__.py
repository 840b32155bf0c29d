"""Load of the experts of a mixture-of-experts model; one file per check. A dense model gets unknown, never pass."""
