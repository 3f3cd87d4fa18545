"""The engine under the structure techniques: coupled channels, how much each matters, blocks."""
