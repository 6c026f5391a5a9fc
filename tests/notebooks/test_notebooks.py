"""Every notebook runs from top to bottom, with its own assertions, on a lake like the demo's.

One kernel runs them all, one after another and without the names of the one before, because each
kernel imports pandas, Matplotlib and SciPy again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from emulated import emulated, fill_lake
from nbclient import NotebookClient

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.ingest.headers.choice import HeaderChoice

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WITHOUT_DATES = ("02_cohort.ipynb", "04_longitudinal.ipynb")
"""Those that say of themselves that they need no true date."""


ONE_PAGE = "07_one_page.ipynb"
CHECKS = {
    ONE_PAGE: """
import pandas as pd

members = women.to_pandas()
series, root = lake.table("series"), lake.root.uri
patients = series.groupby("StudyInstanceUID")["patient_key"].transform("nunique", dropna=False)
series = series[(patients == 1) & series["patient_key"].notna() & series["StudyDate"].notna()]
latest = lake.table("studies")["StudyDate"].max()
since = latest - pd.DateOffset(months=24)
mammograms = series[(series["Modality"] == "MG") & (series["sex"] == "F")
                    & (series["StudyDate"] > since) & series["age_at_study_years"].between(50, 69)]
first = mammograms.sort_values(["StudyDate", "StudyTime"]).drop_duplicates("patient_key")
assert len(first) > 1 and set(first["StudyInstanceUID"]) == set(members["StudyInstanceUID"])

ct = series[series["Modality"] == "CT"].merge(first, on="patient_key", suffixes=("", "_own"))
days = ct["StudyDate_own"] - pd.DateOffset(months=12)
ct = ct[ct["StudyDate"].between(days, ct["StudyDate_own"])
        & (ct["StudyInstanceUID"] != ct["StudyInstanceUID_own"])]
assert len(ct) and set(ct["patient_key"]) == set(with_ct.to_pandas()["patient_key"])

sizes = women.table_one(by="study_year").tableone.loc["n"].iloc[0].droplevel(0)
for year, n in members["study_year"].value_counts().items():
    assert int(sizes[str(year)]) == n
assert set(pd.read_excel("screened.xlsx")["patient_key"]) == set(members["patient_key"])
difference = lake.compare("screened@1", "screened@2")
dates = [line for line in difference.criteria.splitlines() if "BETWEEN" in line]
assert len(dates) == 2 and f"AND '{latest.date()}'" in dates[1]
before = set(screened(then).to_pandas()["patient_key"])
now = set(members["patient_key"])
assert difference.counts.get("joined", 0) == len(now - before)
assert difference.counts.get("left", 0) == len(before - now)
""",
}
"""What holds of a notebook that has no assertions of its own."""


CHEST_CTS = "SELECT image_set_id FROM series WHERE Modality = 'CT' AND body_part = 'CHEST'"
"""The series whose headers are fetched, as the demo does."""


@dataclass(frozen=True)
class Lake:
    """A lake, and what its data store says of people."""

    root: Path
    datastores: tuple[str, ...]
    people: frozenset[str] = field(repr=False)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("lake")
    # The clock stands still, so that the hospital lives the same three days each time: there are
    # a patient of two sexes in them, cascades, and studies that join and leave the frozen cohort.
    hospital: dict[str, Any] = {"now": "2026-03-01T08:00:00Z", "clock": "stopped"}
    hospital |= {"series_size": 0.05}  # how many slices a series has says nothing here
    with emulated(synthetic=2500, seed=1, **hospital) as emulator:
        sync = fill_lake(emulator, root, metadata_tps=1000)
        people = people_of(emulator.admin.truth())
        with cohortlake.open(str(root)) as opened:
            opened.cohort("adults").where("age_at_study_years >= 18").freeze()
        emulator.admin.live(3, seed=3)
        sync.run()
        sync.reconcile()
        people |= people_of(emulator.admin.truth())
        with cohortlake.open(str(root)) as opened:
            chests = opened.sql(CHEST_CTS).to_arrow()["image_set_id"].combine_chunks()
        sync.fetch_headers(HeaderChoice(image_set_ids=chests, include_archived=True))
        sync.publish()
    return Lake(root, sync.settings.datastores, frozenset(people))


def people_of(summaries: Any) -> set[str]:
    """Return what names somebody."""
    tags = ("DICOMPatientName", "DICOMPatientId", "DICOMAccessionNumber")
    values = {summary.get("DICOMTags", {}).get(tag) for summary in summaries for tag in tags}
    return {value for value in values if isinstance(value, str) and len(value) > 5}


@pytest.fixture(scope="module")
def kernel() -> Iterator[NotebookClient]:
    client = NotebookClient(nbformat.v4.new_notebook(), timeout=120)
    with client.setup_kernel():
        yield client


@pytest.mark.parametrize(
    ("name", "policy"),
    [*((path.name, "limited") for path in NOTEBOOKS), *((name, "safe") for name in WITHOUT_DATES)],
)
def test_notebook(
    name: str, policy: str, lake: Lake, kernel: NotebookClient, tmp_path: Path
) -> None:
    own = tmp_path / "lake"  # what a notebook freezes is not there for the others
    shutil.copytree(lake.root, own)
    if policy != "limited":
        Sync(Settings(datastores=lake.datastores, root=str(own), privacy=policy)).publish()
    notebook = nbformat.read(FOLDER / name, as_version=4)
    # What a notebook writes beside itself does not go into the repository.
    begin = f"import os\nos.chdir({str(tmp_path)!r})\n"
    begin += f"os.environ['COHORTLAKE_ROOT'] = {str(own)!r}\n%reset -f"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(begin))
    if name in CHECKS:
        notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[name]))
    kernel.nb = notebook
    kernel.execute(cleanup_kc=False)

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    told = json.dumps([o.get("text") or {k: v for k, v in o["data"].items() if k != "image/png"}
                       for o in outputs], ensure_ascii=False)  # fmt: skip
    assert len(lake.people) > 1000
    assert not any(value in told for value in lake.people), "an output names somebody"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path: Path) -> None:
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert cells and not any(c.outputs or c.execution_count for c in cells)


def test_each_notebook_is_listed() -> None:
    readme = (FOLDER.parent / "README.md").read_text()
    assert all(f"(notebooks/{path.name})" in readme for path in NOTEBOOKS)


def test_the_question_of_one_page_takes_fifteen_lines() -> None:
    cells = nbformat.read(FOLDER / ONE_PAGE, as_version=4).cells
    code = [line for c in cells if c.cell_type == "code" for line in c.source.splitlines()]
    assert len([line for line in code if line.strip()]) <= 15
    assert max(map(len, code)) <= 100
