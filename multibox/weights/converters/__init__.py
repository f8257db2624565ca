"""Weights of other projects: one file for each that says how its tensors and its rules become ours."""
