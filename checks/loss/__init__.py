"""Loss: non-finite values, spikes, divergence."""
