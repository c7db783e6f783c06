"""From an archive to a model of `transformers`, with a model card, and to an ONNX file."""
