"""What the model is fed, against what was planned; one file per check. Never reads a document."""
