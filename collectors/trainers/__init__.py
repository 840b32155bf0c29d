"""Integrations with trainers, one file each. Each imports its trainer only when it is used, and records nothing."""
