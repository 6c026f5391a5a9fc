"""Asset checks: what must hold of the lake after every run. Counts and names only.

What is counted is `cohortlake.admin.checks`' and `Sync.status`'; what is too many is here.
"""

from datetime import timedelta

import dagster as dg

from assets.failures import failures_told
from assets.image_sets import image_sets
from assets.published import published_key
from cohortlake import Sync
from cohortlake.admin import checks
from cohortlake.admin.reconciliation_check import agreement
from cohortlake.cohort import cohort_files as runs

LATEST_COVERAGE = timedelta(days=1)
"""How far what is proven complete may lie behind the service's clock, `settle` apart."""

HIGHEST_INVALID_SHARE = 0.01
"""Above it a modality or an import has gone wrong, and somebody should look."""


@dg.asset_check(asset=image_sets)
def coverage_is_complete(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Nothing is missing up to a day ago, in any data store."""
    tolerance = LATEST_COVERAGE + sync.settings.settle
    with failures_told():
        stores = sync.status().datastores
        late = [s for s in stores if not s.reaches(sync.datastore(s.datastore_id).now - tolerance)]
    return dg.AssetCheckResult(
        passed=not late,
        metadata={
            "late": len(late),
            "gaps": sum(len(store.gaps) for store in stores),
            **{
                f"{store.datastore_id}_complete_until": str(store.complete_until)
                for store in stores
            },
        },
    )


@dg.asset_check(asset=image_sets)
def axes_agree(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """The memory holds what the last sweep of each study month found, where none changed since."""
    with failures_told():
        both = agreement(sync.root)
    return dg.AssetCheckResult(
        passed=not both.differing,
        metadata={
            "agreeing": both.agreeing,
            "differing": len(both.differing),
            "differing_months": ", ".join(both.differing),
            "changed": both.changed,
            "unswept": both.unswept,
            "studies": both.studies,
            "studies_with_fewer_series": both.studies_with_fewer_series,
            "studies_with_more_series": both.studies_with_more_series,
        },
    )


@dg.asset_check(asset=image_sets)
def deletions_are_closed(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """The last sweeps closed all that they did not find: no right is missing, none was too many."""
    with failures_told():
        left_open = checks.left_open(sync.root)
    return dg.AssetCheckResult(
        passed=not left_open,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"left_open": left_open},
    )


@dg.asset_check(asset=image_sets)
def values_are_valid(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Dates, times and numbers can be parsed. Those that cannot stay as they came, and count."""
    with failures_told():
        shares = checks.invalid_shares(sync.root)
    return dg.AssetCheckResult(
        passed=all(share <= HIGHEST_INVALID_SHARE for share in shares.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={f"invalid_share_{column}": share for column, share in shares.items()},
    )


@dg.asset_check(asset=published_key("image_sets"))
def each_image_set_once(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """No image set has two rows."""
    with failures_told():
        repeated = checks.repeated_image_sets(sync.root)
    return dg.AssetCheckResult(passed=not repeated, metadata={"repeated": repeated})


@dg.asset_check(asset=published_key("image_sets"))
def equals_memory(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """There are as many image sets as the memory holds true."""
    with failures_told():
        rows = checks.row_counts(sync.root)
    return dg.AssetCheckResult(
        passed=rows.image_sets == rows.current,
        metadata={"dagster/row_count": rows.image_sets, "memory_rows": rows.current},
    )


@dg.asset_check(asset=published_key("image_sets"))
def cohort_files_have_names_of_cohorts(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """Each YAML file in COHORTLAKE_COHORTS can be a cohort: others have no asset."""
    with failures_told():
        misnamed = runs.misnamed(sync.settings.cohorts)
    return dg.AssetCheckResult(
        passed=not misnamed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "files": ", ".join(misnamed),
            "rename_to": "lower case letters, digits and underscores, and the suffix .yaml",
        },
    )


@dg.asset_check(asset=published_key("history"))
def holds_all_states(sync: dg.ResourceParam[Sync]) -> dg.AssetCheckResult:
    """There are at least as many states as image sets."""
    with failures_told():
        rows = checks.row_counts(sync.root)
    return dg.AssetCheckResult(
        passed=rows.history >= rows.image_sets,
        metadata={"dagster/row_count": rows.history, "image_sets_rows": rows.image_sets},
    )
