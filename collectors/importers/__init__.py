"""Other tools' logs become run folders: one file per format, found by what is in the file and not by its name."""
