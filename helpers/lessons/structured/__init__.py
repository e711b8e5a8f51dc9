"""Notebook 09: questions with a schema, how they are asked, what each server does with a request."""
