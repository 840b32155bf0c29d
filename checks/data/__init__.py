"""What the model is fed, against what was planned."""
