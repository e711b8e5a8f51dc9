"""What the GPU records hold, read on any machine: nothing here measures.

`read` finds lives by their names; the others make of them the tables and pictures that the notebooks show. `tables` prints
them all (``python -m helpers.gpu tables``).
"""
