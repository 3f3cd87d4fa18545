"""Statistics: from measurements to verdicts at a stated error probability."""
