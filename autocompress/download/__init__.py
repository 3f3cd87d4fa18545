"""The entropy-coded download: an ONNX file as `.acz`, rebuilt byte for byte."""
