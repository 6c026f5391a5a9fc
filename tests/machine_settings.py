"""What a process makes of a lake; `test_machine_settings.py` runs it under several settings.

Prints JSON: the result -> its value, or the digest of its bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import locale
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

import cohortlake
from cohortlake import Lake, Settings, Sync, report
from cohortlake.cohort import Cohort
from cohortlake.publish import publisher
from cohortlake.report import gather
from cohortlake.storage.root import Root

MIDNIGHT = "2026-01-15"
"""In UTC. Image sets are created in each hour around it."""
FROZEN = "late"


class Noon(datetime):
    """A clock that stands still: the report says when it and the tables were written."""

    @classmethod
    def now(cls, tz: object = None) -> Noon:
        return cls(2026, 2, 2, 12, tzinfo=UTC)


def late(lake: Lake, registry: Path) -> Cohort:
    """Those created after midnight, with when they were enrolled."""
    lake.attach("registry", registry)
    cohort = lake.cohort(FROZEN, level="series").join("registry")
    cohort = cohort.where(f"first_created_at >= '{MIDNIGHT}'")
    return cohort.where(f"enrolled_at >= '{MIDNIGHT}'")


def results(root: Path, registry: Path) -> dict[str, object]:
    publisher.request_full_publish(Root(str(root)))
    Sync(Settings.from_env()).publish()
    files = sorted(root.glob("published/**/*.parquet"))
    found: dict[str, object] = {str(file.relative_to(root)): digest(file) for file in files}
    with cohortlake.open(str(root)) as lake:
        cohort = late(lake, registry)
        found["verified"] = lake.verify(f"{FROZEN}@1").counts
        found["members"] = len(cohort.to_pandas())
        found["attrition"] = cohort.attrition().to_pandas().to_dict("list")
        found["exported"] = exported(cohort, root / "late.csv")
        frozen = cohort.freeze()
        found["frozen"] = [frozen.digest, frozen.outside, frozen.members, frozen.seen_until]
        found["changes"] = told(lake.changes("2026-02-02", "2026-02-04"))
        found["diff"] = told(lake.diff("before", "now"))
        page = root / "report.html"
        report.write(lake, page, cohort, suppress_below=0)
        found["report"] = digest(page)
        text = lake.sql("SELECT max(first_created_at)::VARCHAR FROM series").fetchall()
        found["printed"] = text[0][0]
    return found


def exported(cohort: Cohort, path: Path) -> str:
    cohort.export(path)
    return digest(path)


def told(frame: pd.DataFrame) -> list[str]:
    return sorted(map(str, frame.astype(object).to_dict("records")))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    with contextlib.suppress(locale.Error):  # without it only its name is tried
        locale.setlocale(locale.LC_ALL, "")
    for module in (gather, publisher):
        module.datetime = Noon  # type: ignore[attr-defined]
    sys.stdout.write(json.dumps(results(Path(sys.argv[1]), Path(sys.argv[2]))))
