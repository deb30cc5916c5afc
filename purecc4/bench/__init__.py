"""Benchmarks of speed and size: on this machine, for a GPU you do not have, and against another checkout."""
