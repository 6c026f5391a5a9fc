"""The lake: increments, the memory, the ledger, and what is published from them.

The only code that writes Parquet. Data flows one way through it: `extract` and `sweep` write
increments; `image_sets` and `coverage` remember them; `publish` shows them; `read` reads what
is published.
"""
