"""The table of runs, and up to ten of them in one chart."""
