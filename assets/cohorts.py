"""After the layer `published`: the members of the cohorts that are kept as YAML files.

Each file in COHORTLAKE_COHORTS has an asset from when the code location loads. Its content is read
when the asset runs, so that a file that cannot be read fails alone. People freeze cohorts, not
Dagster.
"""

import dagster as dg

from assets.failures import RETRY, failures_told
from assets.metadata import column_schema
from assets.published import MEANINGS, published_key
from cohortlake import Settings, Sync, open
from cohortlake.cohort import cohort_files as runs
from cohortlake.schema import PATIENT_KEY


def cohort_key(name: str) -> dg.AssetKey:
    """Return the key of a cohort's asset."""
    return dg.AssetKey(f"cohort_{name}")


def _cohort(name: str) -> dg.AssetsDefinition:
    key = cohort_key(name)

    @dg.asset(
        key=key,
        deps=[published_key(table) for table in MEANINGS],
        description=f"The members of the cohort in {name}.yaml, as they are now.",
        retry_policy=RETRY,
        group_name="cohorts",
        kinds={"parquet"},
        metadata={"dagster/column_schema": column_schema([PATIENT_KEY])},
        check_specs=[
            dg.AssetCheckSpec("has_members", asset=key, description="There is anybody in it."),
            dg.AssetCheckSpec(
                "equals_frozen",
                asset=key,
                description="Its last freezing, if any, would give the same members today.",
            ),
        ],
    )
    # With checks of its own, Dagster knows the plain class only.
    def cohort(sync: dg.ResourceParam[Sync]) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with failures_told(), open(sync.settings.readers_root) as lake:
            folder = sync.settings.cohorts
            ran = runs.run(runs.load(lake, folder, name), folder)
        return _result(sync, ran)

    return cohort


def _result(sync: Sync, ran: runs.RunResult) -> dg.MaterializeResult[None]:
    found = ran.verification
    differing: dict[str, int | str] = {**found.counts} if found else {}
    if found and not found.is_identical and found.image_sets is not None:
        differing["image_sets"] = len(found.image_sets)
    if ran.unverified:
        differing["cannot_be_verified"] = ran.unverified
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": ran.members,
            "path": dg.MetadataValue.path(sync.root.uri_of(ran.path)),
            "columns": ", ".join(ran.columns),
            "is_written": ran.is_written,
            **vars(ran.attrition.steps[-1].counts),
        },
        check_results=[
            dg.AssetCheckResult(check_name="has_members", passed=ran.members > 0),
            dg.AssetCheckResult(
                check_name="equals_frozen",
                passed=not differing,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"frozen": ran.frozen or "never", **differing},
            ),
        ],
    )


cohorts = [_cohort(name) for name in runs.files(Settings.from_env().cohorts)]
