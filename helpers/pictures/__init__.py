"""Pictures that explain: each function takes plain numbers, as JSON has them, and returns a matplotlib figure.

Figures of frameworks over users are in :mod:`helpers.plots`, which also shows and saves all of them.
"""
