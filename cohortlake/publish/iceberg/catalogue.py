"""Opens the Iceberg catalogue that COHORTLAKE_ICEBERG names.

How to reach it is PyIceberg's own configuration: `.pyiceberg.yaml`, or environment variables such
as `PYICEBERG_CATALOG__GLUE__TYPE=glue`. Requests to S3 go where the lake's own go.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from cohortlake.errors import SettingError
from cohortlake.optional_dependencies import module


@dataclass(frozen=True)
class Target:
    """Where the tables are registered.

    Attributes:
        catalogue: The name of the catalogue, as PyIceberg's configuration has it.
        namespace: The namespace of the tables. AWS Glue calls it a database.
    """

    catalogue: str
    namespace: str

    @classmethod
    def of(cls, setting: str) -> Target:
        """Read COHORTLAKE_ICEBERG."""
        return cls(*setting.split("."))

    def __str__(self) -> str:
        return f"{self.catalogue}.{self.namespace}"

    def table(self, name: str) -> tuple[str, str]:
        """Return the identifier of a table."""
        return self.namespace, name


def open_catalogue(target: Target) -> Any:
    """Open the catalogue.

    Raises:
        MissingExtra: PyIceberg is not installed.
        SettingError: PyIceberg's configuration has no such catalogue.
    """
    # Not `load_catalog` alone: it knows the environment as it was when it was imported.
    configured = module("pyiceberg.utils.config").Config().get_catalog_config(target.catalogue)
    if configured is None:
        variable = f"PYICEBERG_CATALOG__{target.catalogue.upper().replace('-', '_')}__TYPE"
        raise SettingError(
            f"COHORTLAKE_ICEBERG={target}, but PyIceberg's configuration has no catalogue "
            f"{target.catalogue!r}; describe it in .pyiceberg.yaml, or set {variable} and what "
            "else that type needs"
        )
    properties = {**_from_environment(), **configured}
    return module("pyiceberg.catalog").load_catalog(target.catalogue, **properties)


def _from_environment() -> dict[str, str]:
    """Return the endpoint and the region, which PyIceberg does not read from the environment."""
    variables = {
        "s3.endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "client.region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    found = {
        name: next(filter(None, map(os.environ.get, alternatives)), None)
        for name, alternatives in variables.items()
    }
    return {name: value for name, value in found.items() if value}
