"""The answers of the emulated service: request shapes, operations, searches, faults, counts.

See `data` for what is stored, and `control` for changes from outside.
"""
