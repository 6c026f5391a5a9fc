"""Privacy: which columns a reader may see, how they are made safe, and who was erased.

A policy is applied when the lake publishes, and nowhere earlier. See `schema` for how far each
column identifies a person.
"""

from cohortlake.privacy.keyed_hashes import fingerprint, keyed_hashes, new_key
from cohortlake.privacy.policy import REVIEWABLE, Policy, Treatment, built_in, policy_of

__all__ = [
    "REVIEWABLE",
    "Policy",
    "Treatment",
    "built_in",
    "fingerprint",
    "keyed_hashes",
    "new_key",
    "policy_of",
]
