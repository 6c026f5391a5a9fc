"""Privacy: which columns a reader may see, and how they are made safe.

Applied when the lake publishes and nowhere earlier; what it protects is `schema`'s to say.
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
