"""From the service to increments: searches, sweeps, confirmed deletions, older versions, events.

Here: which windows to search, and writing what the service answers. Not here: which states follow
from an increment (see `history`), and how a window is paged (see `healthimaging`).
"""
