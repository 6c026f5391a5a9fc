"""What an operator asks for: status, checks, erasing a patient, rotating the key, reviewing texts.

The daily stages belong to `ingest`, `history` and `publish`.
"""
