"""The package's types and its contracts, each in a file of its own."""
