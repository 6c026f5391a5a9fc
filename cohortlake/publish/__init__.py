"""From the version history to the published tables, under a privacy policy.

Reading them belongs to `published`.
"""
