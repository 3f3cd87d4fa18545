"""The stages of a run, from what was given to the answer."""
