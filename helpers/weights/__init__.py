"""The model on disk: its files, its shape, its bytes, what fits into a memory and what bounds its speed."""
