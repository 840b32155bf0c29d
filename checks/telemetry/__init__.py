"""Whether the telemetry itself can be trusted; one file per check. Never judges the training."""
