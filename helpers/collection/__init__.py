"""The book itself: its notebooks, its claims, the source document, the references and the pages of docs/."""
