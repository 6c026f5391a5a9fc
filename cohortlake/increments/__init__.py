"""Increments: what one search found, one immutable Parquet file for each window and run.

Here: the record in a file's footer, and writing, listing, reading and rewriting the files. Not
here: how the service is searched (see `ingest`), and which states follow from the rows (see
`history`).

A file gets its name only after its search has read the last token. A search that fails leaves no
file. The footers alone tell what was searched, so everything else in the lake can be rebuilt
from the increments. Only two things rewrite an increment: an erasure, and a release with other
columns.
"""
