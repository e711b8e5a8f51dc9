"""The race: one prompt to every engine, one after the other and all at once, run here or replayed from a record."""
