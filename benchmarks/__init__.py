"""Benchmarks: what pyprof costs, side by side with its peers in one run."""
