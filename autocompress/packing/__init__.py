"""The weights of an ONNX file, clustered so that they can be stored in few bits."""
