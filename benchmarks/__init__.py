"""Benchmarks: each says its claim and its command; the last figures are in README.md."""
