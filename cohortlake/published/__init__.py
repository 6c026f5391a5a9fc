"""Reads the published tables: as they are now, as they were, and what changed in between.

Nothing here writes tables, and nothing here reads the restricted zone.
"""
