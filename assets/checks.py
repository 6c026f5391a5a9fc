"""Asset checks: what must hold of the lake after every run. Counts and names only.

See `cohortlake.admin.checks` for what is counted, and how much is too much.
"""

import dagster as dg

from assets.failures import failures_told
from assets.image_sets import image_sets
from assets.published import published_key
from cohortlake import Sync
from cohortlake.admin import checks
from cohortlake.admin.checks import CheckResult


@dg.asset_check(asset=image_sets)
def coverage_is_complete(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Nothing is missing up to a day ago, in any data store."""
    with failures_told():
        return _result(sync.check_coverage())


@dg.asset_check(asset=image_sets)
def axes_agree(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Each study month that did not change since its last sweep holds what that sweep found."""
    with failures_told():
        return _result(checks.check_reconciliation(sync.root))


@dg.asset_check(asset=image_sets)
def deletions_are_closed(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """The last sweeps closed every image set that they did not find."""
    with failures_told():
        return _warning(checks.check_deletions(sync.root))


@dg.asset_check(asset=image_sets)
def imports_arrived(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """No import job failed in the last day. What a job did not bring is in no search."""
    with failures_told():
        return _warning(sync.check_imports())


@dg.asset_check(asset=image_sets)
def values_are_valid(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Dates, times and numbers can be parsed. Values that cannot are kept as sent, and counted."""
    with failures_told():
        return _warning(checks.check_values(sync.root))


@dg.asset_check(asset=published_key("image_sets"))
def each_image_set_once(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """No image set has two rows."""
    with failures_told():
        return _result(checks.check_unique(sync.root))


@dg.asset_check(asset=published_key("image_sets"))
def equals_version_history(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """There are as many image sets as the version history holds as current."""
    with failures_told():
        return _result(checks.check_published_rows(sync.root))


@dg.asset_check(asset=published_key("image_sets"))
def cohort_files_have_names_of_cohorts(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Each YAML file in COHORTLAKE_COHORTS has a name that a cohort can have."""
    with failures_told():
        return _warning(checks.check_cohort_files(sync.settings.cohorts))


@dg.asset_check(asset=published_key("series_headers"))
def headers_can_be_read(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Each header that was asked for could be read. Says how many series have one."""
    with failures_told():
        return _warning(checks.check_headers(sync.root, sync.settings))


@dg.asset_check(asset=published_key("history"))
def holds_all_states(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """There are at least as many states as image sets."""
    with failures_told():
        return _result(checks.check_history_rows(sync.root))


def _result(result: CheckResult) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=result.passed, metadata=result.counts)


def _warning(result: CheckResult) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=result.passed, severity=dg.AssetCheckSeverity.WARN, metadata=result.counts
    )
