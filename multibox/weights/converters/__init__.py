"""Converters of weights of other projects: one file for each says how its tensors and its rules become ours."""
