"""Loading of data and models from the specs that users give."""
