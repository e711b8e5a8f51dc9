"""Notebook 08, and the roof of 01 and 07: what a KV cache reserves, how fast memory and arithmetic are."""
