"""What the model is, and what pays on this device."""
