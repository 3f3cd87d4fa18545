"""Training a changed network with the original as its teacher, and what that costs."""
