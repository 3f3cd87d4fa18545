"""The space of structures and the path through it."""
