"""Whether the telemetry itself can be trusted."""
