"""Contamination audits: which benchmark items were in the training data, where, and what is the score without them?"""
