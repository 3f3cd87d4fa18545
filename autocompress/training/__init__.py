"""Training of a changed network with the original as its teacher, and its cost."""
