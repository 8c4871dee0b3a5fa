"""Benchmarks that compare this project with straightforward implementations of the same formulas."""
