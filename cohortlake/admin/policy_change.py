"""Whether the settings would change the policy of what is published, and whether they ask for it.

Readers rely on what the policy shows. If the settings of a run do not name a policy, the run must
not change it: the setting may only be missing on that machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cohortlake import schema
from cohortlake.privacy import Policy, policy_of
from cohortlake.publish.publication.marker import Publication
from cohortlake.settings import POLICIES, SAFE_DATES, Settings


@dataclass(frozen=True)
class PolicyChange:
    """A publication under another policy than the one before.

    Attributes:
        before: The name of the policy of what is published.
        after: The name of the policy of the settings.
        is_asked_for: Whether a setting or an option names the new policy.
        to_keep: The settings that keep the policy.
        to_change: The setting or option that asks for the change.
    """

    before: str
    after: str
    is_asked_for: bool
    to_keep: str
    to_change: str

    def __str__(self) -> str:
        was = f"the lake is published under the policy {self.before!r}"
        if not self.is_asked_for:
            return f"{was}. Set {self.to_keep} to go on, or {self.to_change} to change it"
        if self.before == self.after:
            return f"{was}, which has changed since: every file is written again"
        return (
            f"{was}: from now on it is published under {self.after!r}, "
            "and every file is written again"
        )


def policy_change(
    settings: Settings, policy: Policy, before: Publication | None
) -> PolicyChange | None:
    """Return how the policy of the settings differs from the published one, or None.

    Args:
        settings: The settings.
        policy: The policy that the settings give.
        before: What is published, or None.
    """
    if before is None:
        return None
    if before.policy != policy.name:
        file = "" if before.policy in POLICIES else " and COHORTLAKE_PRIVACY_FILE to its file"
        return PolicyChange(
            before.policy,
            policy.name,
            bool(settings.privacy),
            f"COHORTLAKE_PRIVACY={before.policy}{file}",
            f"give --policy {policy.name}",
        )
    # The marker of an older format may not hold the digest of the policy.
    if before.format != schema.FORMAT_VERSION or before.policy_digest == policy.digest:
        return None
    dates = _dates_of(settings, before)
    variable = "COHORTLAKE_SAFE_DATES"
    return PolicyChange(
        before.policy,
        policy.name,
        dates is None,
        f"{variable}={dates}",
        f"{variable}={policy.dates.value}",
    )


def _dates_of(settings: Settings, before: Publication) -> str | None:
    """Return the COHORTLAKE_SAFE_DATES of what is published, if only this setting is missing."""
    if settings.safe_dates:
        return None
    for dates in SAFE_DATES:
        if policy_of(replace(settings, safe_dates=dates)).digest == before.policy_digest:
            return dates
    return None
