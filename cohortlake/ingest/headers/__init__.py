"""From metadata documents to `headers/`: which headers are due, and fetching them.

Not here: how a document is read (see `healthimaging.document`), and what a row holds (see
`headers`).
"""
