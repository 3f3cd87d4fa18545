"""From a plan to an artifact, and from an artifact to its measurement."""
