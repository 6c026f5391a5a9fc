"""What an operator asks for: status, checks, erasure, key rotation, set-aside, review of texts.

Not here: the stages of a daily run (see `ingest`, `history` and `publish`).
"""
