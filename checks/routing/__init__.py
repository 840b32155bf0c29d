"""Load of the experts of a mixture-of-experts model."""
