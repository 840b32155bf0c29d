"""Learning rate and gradients; one file per check. Never judges the loss."""
