"""The package as its users meet it: real models, files, processes and measurements."""
