"""Folders, locks, workers, time limits: what a run needs of the operating system."""
