"""From an alarm to an act: which incident this is, what moved first, what to do about it."""
