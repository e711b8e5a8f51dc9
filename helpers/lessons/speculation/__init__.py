"""Notebook 10: draft models, and what they gain."""
