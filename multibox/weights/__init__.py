"""Weights files: a config, class names and tensors together."""
