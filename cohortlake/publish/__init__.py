"""Makes the published tables from the version history, under a privacy policy.

What reads the published tables belongs in `published`; what applies increments in `history`.
"""
