"""`trainvitals run -- COMMAND`: a training command, unchanged, with somebody listening."""
