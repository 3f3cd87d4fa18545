"""Services of the operating system: folders, locks, workers, time limits."""
