"""Notebook 12: changing the engine, faults, routing, a pipeline that survives, how servers are operated."""
