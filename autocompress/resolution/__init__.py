"""`resolve`: answers other budgets from a finished run."""
