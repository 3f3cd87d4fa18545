"""The space of structures, and the search for pruning paths through it."""
