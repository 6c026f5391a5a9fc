"""Benchmarks. Each module states its claim and its command. README.md has the last results."""
