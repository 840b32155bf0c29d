"""Mirrors: what a script hands to another tracker goes into a run of ours too."""
