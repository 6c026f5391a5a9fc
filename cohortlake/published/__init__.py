"""Reading the published tables: as they are now, as they were, and what changed between.

Nothing here writes, and nothing here reads the restricted zone.
"""
