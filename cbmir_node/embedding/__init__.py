"""Pictures → vectors, by an ONNX network that describes itself."""
