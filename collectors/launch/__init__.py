"""`trainvitals run -- COMMAND`: a training command, unchanged, with somebody listening."""

BEGIN, END, OUTPUT = "begin.json", "end.json", "output.log"
"""Files of a launch, see `collectors.importers.heard`."""
