"""A result depends on the data alone: not on the machine's time zone, and not on its locale."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from endpoint import Endpoint
from machine_settings import MIDNIGHT, late
from small_hospital import change, fill

import cohortlake
from cohortlake import Settings, Sync

SCRIPT = Path(__file__).parents[2] / "machine_settings.py"
LIBRARY = Path(cohortlake.__file__).parent
TURKISH = "tr_TR.UTF-8"
"""Its lower case of I is no i, its decimal point is a comma."""
MACHINES = {
    "new_york": {"TZ": "America/New_York", "LC_ALL": "C"},
    "kolkata": {"TZ": "Asia/Kolkata", "LC_ALL": TURKISH, "LANG": TURKISH, "LANGUAGE": "tr"},
}
"""West of UTC and east of it: what depends on the zone differs between them."""


def test_time_zone_and_locale_are_no_part_of_a_result(
    endpoint: Endpoint, lake_settings: Settings, tmp_path: Path
) -> None:
    fill(endpoint, 60)
    midnight = datetime.fromisoformat(MIDNIGHT).replace(tzinfo=UTC)
    for number, image_set in enumerate(endpoint.image_sets[:24]):
        at = (midnight + timedelta(hours=number - 12)).timestamp()
        image_set |= {"createdAt": at, "updatedAt": at}
    Sync(lake_settings).run()
    cohortlake.Lake(Sync(lake_settings).root).tag("before")
    endpoint.now += timedelta(days=2)
    change(endpoint, 13, DICOMStudyDate="20250620")
    Sync(lake_settings).run()
    registry = tmp_path / "registry.csv"
    with cohortlake.open(lake_settings.root) as lake:
        keys = sorted(lake.table("patients")["patient_key"])
        enrolled = [f"{midnight + timedelta(hours=n - 6):%Y-%m-%dT%H:%M:%SZ}" for n in range(12)]
        pd.DataFrame({"patient_key": keys[:12], "enrolled_at": enrolled[: len(keys)]}).to_csv(
            registry, index=False
        )
        late(lake, registry).freeze()
    running = {}
    for name, machine in MACHINES.items():
        folder = tmp_path / name / "lake"
        shutil.copytree(lake_settings.root, folder)
        environment = os.environ | machine | {
            "COHORTLAKE_ROOT": str(folder), "COHORTLAKE_PRIVACY": "limited",
            "COHORTLAKE_DATASTORES": ",".join(lake_settings.datastores),
            "LOCPATH": turkish(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path),
        }  # fmt: skip
        running[name] = subprocess.Popen(
            [sys.executable, SCRIPT, folder, registry], env=environment, text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
    found = {name: json.loads(process.communicate(timeout=120)[0] or "{}")
             for name, process in running.items()}  # fmt: skip
    first = found["new_york"]
    assert first["members"] > 5
    assert first["verified"] == {}
    assert first["printed"].endswith("+00")
    for name, own in found.items():
        assert {k: v for k, v in own.items() if first.get(k) != v} == {}, name
        assert own.keys() == first.keys(), name


def turkish(folder: Path) -> str:
    """Make the Turkish locale where the machine can, and return the folder."""
    made = folder / "locales"
    if not made.exists() and (localedef := shutil.which("localedef")):
        made.mkdir()
        subprocess.run(
            [localedef, "-i", "tr_TR", "-f", "UTF-8", made / TURKISH],
            capture_output=True, check=False,
        )  # fmt: skip
    return str(made)


def test_only_the_engine_opens_duckdb() -> None:
    """It sets UTC; `duckdb.sql` and its like ask a connection that has the machine's zone."""
    opening = {
        "connect",
        "sql",
        "query",
        "execute",
        "read_csv",
        "read_parquet",
        "default_connection",
    }
    found = {
        file.relative_to(LIBRARY).as_posix()
        for file in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in opening
        and isinstance(node.value, ast.Name) and node.value.id == "duckdb"
    }  # fmt: skip
    assert found == {"storage/engine.py"}
