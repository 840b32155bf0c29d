"""Contamination: which benchmark items were in the training data, and which score to trust."""

from dashboard.audit_page import page

page()
