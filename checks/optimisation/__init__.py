"""Learning rate and gradients."""
