"""Evaluation: builds a plan's artifact and measures it."""
