"""Other budgets, answered from a finished run."""
