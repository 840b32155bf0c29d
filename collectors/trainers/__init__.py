"""Integrations with trainers. Each imports its trainer only when it is used."""
