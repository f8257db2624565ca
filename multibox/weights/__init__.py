"""Files of weights: a config, class names and tensors together."""
