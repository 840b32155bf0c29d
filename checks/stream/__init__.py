"""The streaming judge: a scan that reads each series in order, and what it remembers of a run between looks."""
