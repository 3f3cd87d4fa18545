"""The decision tree: questions, rules, and the search space that follows from the answers."""
