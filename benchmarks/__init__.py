"""Measure the time and memory of multibox beside its peers: `python -m benchmarks`, or `make bench`."""
