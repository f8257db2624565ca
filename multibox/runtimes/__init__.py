"""Runs prepared images through a network, whatever file or library the network comes from."""
