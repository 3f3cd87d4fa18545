"""Analysis of the model: facts read off it, and probes that time techniques on the target device."""
