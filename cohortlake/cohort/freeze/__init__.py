"""Frozen cohorts: digests, signatures and manifests, and how members changed since.

Who is a member is decided in `cohort.select`.
"""
