"""The score with and without what was found, and which one to trust. Never changes a verdict."""
