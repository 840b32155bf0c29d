"""Loss: non-finite values, spikes, divergence; one file per check. Never looks for the cause elsewhere."""
