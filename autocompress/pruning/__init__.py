"""Pruning mechanics under the structure techniques: coupled channels, channel importance, blocks."""
