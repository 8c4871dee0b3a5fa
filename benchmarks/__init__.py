"""Benchmarks of this project's parts against straightforward implementations of the same formulas."""
