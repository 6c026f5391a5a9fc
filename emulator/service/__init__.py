"""What the emulated service does with a request: shapes, operations, searches, faults, counts.

What is stored belongs to `data`. Changing the emulator from outside belongs to `control`.
"""
