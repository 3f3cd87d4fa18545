"""Data and models as the user names them, and what is read of them."""
