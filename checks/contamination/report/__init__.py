"""The audit as a page, exports and a summary. It writes what was decided elsewhere and decides nothing."""
