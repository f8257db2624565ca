"""Converters for weights of other projects. One file for each project says how its tensors and rules become ours."""
