"""Notebook 14: the rules of the decision, their answer, and the pictures and the page made of them."""
