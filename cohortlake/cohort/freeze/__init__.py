"""Frozen cohorts: digests, signatures, manifests, and whether members are still the same.

Who is a member belongs to `cohort.select`.
"""
