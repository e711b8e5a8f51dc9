"""Notebook 11: GGUF types made, run, and held against each other."""
