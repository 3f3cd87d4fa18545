"""The stages of a run, from its inputs to the answer."""
