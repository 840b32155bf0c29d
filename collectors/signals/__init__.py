"""One file per signal family, and what each may ask of the tap (`collector.py`). None knows the loop or a trainer."""
