"""The code location: what `dagster` and `dg` load."""

from collections.abc import Mapping

import dagster as dg

import assets
from pipelines.alerts import ALERTS
from pipelines.jobs import JOBS
from pipelines.resources import RESOURCES
from pipelines.schedules import SCHEDULES
from pipelines.sensors import SENSORS
from pipelines.upkeep import maintain


def build_defs(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Put the deployment together.

    Args:
        resource_overrides: Resources to use instead of the deployment's, by name.
    """
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(assets),
        asset_checks=dg.load_asset_checks_from_package_module(assets),
        jobs=[*JOBS, maintain],
        schedules=SCHEDULES,
        sensors=[*SENSORS, *ALERTS],
        resources={**RESOURCES, **(resource_overrides or {})},
        # The library searches side by side itself; a process per asset would only cost seconds.
        executor=dg.in_process_executor,
    )


defs = build_defs()
