"""What the header of an image set says: one compact row for each version, and where these lie.

Not here: how a document is fetched (`healthimaging`, `ingest`), and what readers see (`publish`).
"""
