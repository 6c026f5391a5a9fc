"""From the service to increments: searches, sweeps, confirmed deletions, older versions, events.

What follows from an increment belongs to `history`.
"""
