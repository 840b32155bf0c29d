"""`trainvitals watch`: judges runs while they grow, and tells people once of each thing that goes wrong."""
