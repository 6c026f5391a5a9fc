"""A lake that is published twice, and what DuckDB answers about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aws as moto
import boto3
import duckdb
import pytest
from emulated import emulated

from cohortlake import Settings, Sync
from engines.questions import QUESTIONS, comparable

ENGINES = Path(__file__).parents[2] / "var/engines"
"""See scripts/engines.sh."""

CATALOGUE, NAMESPACE = "lakes", "imaging"
S3 = "s3://lakes/lake"


@dataclass(frozen=True)
class Lakes:
    """The same hospital in two lakes.

    Attributes:
        local: A lake on a disk, registered in a SQL catalogue.
        catalogue: The file of that catalogue.
        endpoint: Where S3 is served, with the other lake, and AWS Glue, in which it is registered.
        first: What DuckDB answered after the first publication of the local lake.
        answers: What it answers now.
    """

    local: Path
    catalogue: Path
    endpoint: str
    first: dict[str, list[tuple[str, ...]]]
    answers: dict[str, list[tuple[str, ...]]]


@pytest.fixture(scope="session")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lakes]:
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch, moto.serving() as endpoint:
        for service in ("S3", "GLUE"):
            patch.setenv(f"AWS_ENDPOINT_URL_{service}", endpoint)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("PYICEBERG_CATALOG__LAKES__TYPE", "sql")
        patch.setenv("PYICEBERG_CATALOG__LAKES__URI", f"sqlite:///{folder}/catalogue.db")
        patch.setenv("PYICEBERG_CATALOG__GLUE__TYPE", "glue")
        boto3.client("s3").create_bucket(Bucket="lakes")
        with emulated(
            synthetic=500, seed=3, now="2026-06-01T12:00:00Z", clock="stopped"
        ) as hospital:
            patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", hospital.endpoint)

            local = folder / "lake"
            iceberg = {str(local): CATALOGUE, S3: "glue"}

            def sync() -> None:
                for root, catalogue in iceberg.items():
                    settings = Settings(
                        hospital.datastores,
                        root,
                        tps=1000,
                        privacy="limited",
                        iceberg=f"{catalogue}.{NAMESPACE}",
                    )
                    Sync(settings).run()

            sync()
            first = answers(local)
            hospital.admin.advance(seconds=3600)
            for number, row in enumerate(list(hospital.admin.truth())[::20]):
                hospital.admin.update(row["imageSetId"], {"DICOMPatientSex": "MFO"[number % 3]})
            hospital.admin.advance(seconds=60)
            sync()
        yield Lakes(local, folder / "catalogue.db", endpoint, first, answers(local))


def answers(lake: Path) -> dict[str, list[tuple[str, ...]]]:
    """Return DuckDB's answers, by its views over the published files."""
    with duckdb.connect(str(lake / "published/cohortlake.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        return {
            name: comparable(
                con.execute(sql.format(at="", has_ct="list_contains(modalities, 'CT')")).fetchall()
            )
            for name, sql in QUESTIONS.items()
        }


def bare_environment() -> dict[str, str]:
    """Return an environment without settings, for a program that is started."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
