"""Run a network on prepared inputs, whatever file or library the network comes from."""
