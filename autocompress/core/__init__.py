"""The types and the contracts, each in a file of its own."""
