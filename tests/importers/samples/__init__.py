"""A tiny log of every format: one module per format, found by name.

    FORMAT = "hf-trainer"                       # the importer's
    def write(folder: Path) -> Path: ...        # makes the log below an empty folder; what a user would name
    ROWS = {"loss/train": {1: 3.0, 2: 2.9}}     # name in the run -> step -> value, bit by bit (NaN included)
    BLIND = {"nonfinite"}                       # kinds of blind spots that the run must have, at least

`tests/importers/test_formats.py` sends each through the door, through `trainvitals check`, and through damage.
"""
