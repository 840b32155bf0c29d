"""Files of a launch that `trainvitals run` writes and `heard` reads."""

BEGIN, END, OUTPUT = "begin.json", "end.json", "output.log"
