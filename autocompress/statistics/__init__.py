"""From measurements to verdicts at a stated error probability."""
