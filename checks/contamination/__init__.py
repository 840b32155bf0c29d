"""Contamination audits: which benchmark items were in the training data, where, and the score without. Never trains."""
