"""A run's health as one HTML file. It shows what the checks decided, and decides nothing."""
