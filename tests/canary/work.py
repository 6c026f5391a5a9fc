"""What a deployment does all day, in a process that logs all there is: `python -m canary.work`.

Each job is a function that does not fail; what the library raises is printed as a person, a log
or an error reporter would see it. A process does several jobs, one after the other, and imports
what only some of them use when they begin.
"""

from __future__ import annotations

import faulthandler
import functools
import gzip
import importlib
import io
import itertools
import logging
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pandas as pd
import pytest
from endpoint import DATASTORE, Endpoint, serving

import cohortlake
from canary import plant
from cohortlake import CohortlakeError, HealthImaging, Settings, Sync
from cohortlake.cli import app
from cohortlake.cohort.pixels.write import FORMATS
from cohortlake.healthimaging import client
from cohortlake.ingest import partitions
from cohortlake.ingest.headers.choice import HeaderChoice

REPOSITORY = Path(__file__).parents[2]


def main(root: str, *jobs: str) -> None:
    """Do some of the jobs below, with every logger open."""
    logging.basicConfig(level=1, stream=sys.stderr)
    logging.raiseExceptions = True
    if not {"command", "identified", "orchestrate"} & {*jobs}:  # these protect themselves
        cohortlake.protect_process()
    faulthandler.enable()
    client._LONGEST_WAIT_SECONDS = 0.001
    # Each client of boto3 reads the models of its service again, and some jobs make dozens.
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    # Fewer partitions, less to wait: the first ones hold all that was planted.
    partitions.FIRST_DAY, partitions.FIRST_MONTH = date(2026, 1, 30), date(2025, 9, 1)
    for job in jobs:
        JOBS[job](root)


def told(work: Callable[..., object], *arguments: object) -> None:
    """Do something that may fail, and print all that is to be seen of its failure."""
    try:
        work(*arguments)
    except Exception as error:
        assert isinstance(error, CohortlakeError), type(error)
        traceback.print_exc()
        for one in _chain(error):
            print(repr(one), one.args, vars(one))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what raised it or was at hand, whether a traceback shows it or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def fill(root: str) -> None:
    """Fill a lake, and let changes, deletions and older versions come."""
    with serving() as endpoint:
        plant.fill(endpoint)
        work = _sync(root, endpoint)
        print(work.run(fill_versions=True))
        plant.update(endpoint, 5)
        endpoint.image_sets.pop()
        endpoint.now += timedelta(hours=2)
        print(_sync(root, endpoint).run())
        print(_sync(root, endpoint).reconcile(accept_deletions=True))
        print(_sync(root, endpoint).enrich(HeaderChoice()))
        for name in ("maintain", "rebuild", "publish", "status", "imports", "check_imports"):
            print(getattr(_sync(root, endpoint), name)())


def ask(root: str) -> None:
    """Ask a lake everything, as a notebook does."""
    lake = cohortlake.open(root)
    for table in lake.tables:
        columns = lake.columns(table)
        print(columns, lake.describe(table).to_string(), lake.table(table).to_string())
    print(lake.sql("SELECT count(*) FROM series"), lake.snapshots().to_string())
    print(lake.tag("before"))
    told(lake.diff, "before", "now")
    told(_print_changes, lake)
    cohort = lake.cohort("all", level="series").first_study_per_patient()
    cohort = cohort.split(train=0.5, test=0.5)
    print(cohort, cohort.to_pandas().to_string(), cohort.attrition().to_pandas().to_string())
    print(cohort.freeze(), lake.verify("all"), cohort.table_one(by="split").tabulate())
    cohort.attrition().save("all.svg")
    for name in FORMATS:
        with suppress(CohortlakeError):
            print(cohort.manifest(f"pixels-{name}", format=name))
    for name in ("studies_over_time", "age_sex_pyramid", "modality_by_body_part"):
        with suppress(CohortlakeError):
            getattr(cohort.plot, name)().savefig(f"{name}.svg")


def _print_changes(lake: cohortlake.Lake) -> None:
    print(lake.changes("2026-01-02").to_string())


def fail(root: str) -> None:
    """Ask for what cannot be had, of a lake and of a service that answers every kind of rubbish."""
    with serving() as endpoint:
        plant.fill(endpoint)
        for misbehaviour in _misbehaviours():
            with _misbehaving(endpoint, misbehaviour):
                told(_sync(root + "-failing", endpoint).run)
                service, store = HealthImaging(Settings(tps=1000)), DATASTORE
                told(service.has_image_set, store, "0" * 32)
                told(service.versions, store, "0" * 32)
                told(service.metadata, store, "0" * 32, 1, list)
                criteria = {"filters": [_equal(plant.text("PatientID"))]}
                told(cohortlake.search_image_sets, service, store, criteria)
        for content in (plant.text("header"), f'{{"Patient": "{plant.text("header")}"}}'):
            endpoint.documents[f"{9:032x}", 1] = gzip.compress(content.encode())
            told(service.metadata, store, f"{9:032x}", 1, list)
        token = plant.text("nextToken")
        told(service.search_page, store, {"filters": [_equal("x")]}, token)
        told(cohortlake.search_image_sets, service, store, {"filters": plant.text("PatientID")})
    lake = cohortlake.open(root)
    for column in lake.columns("image_sets"):
        told(lake.sql(f'SELECT CAST("{column}" AS INTEGER) FROM image_sets').to_arrow)
        told(lake.sql(f"SELECT error({column}::TEXT) FROM image_sets").to_arrow)
        told(_members_where, lake, f'CAST("{column}" AS INTEGER) = 1')
    keys = lake.table("patients", ["patient_key"])
    doubled = pd.concat([keys, keys]).assign(note=plant.text("StudyDescription"))
    told(lake.attach, "registry", doubled)


def _members_where(lake: cohortlake.Lake, condition: str) -> None:
    lake.cohort("bad").where(condition).to_pandas()


def erase(root: str) -> None:
    """Erase a patient, and one that is not there."""
    work = Sync(Settings(datastores=(DATASTORE,), root=root))
    told(work.erase, plant.text("PatientID", 2), DATASTORE)
    told(work.erase, plant.text("PatientID", "nobody"), DATASTORE)


def command(root: str) -> None:
    """Give every command of the command line, those that print identified data apart."""
    _keep_a_cohort()
    os.environ |= {"COHORTLAKE_ROOT": root, "COHORTLAKE_TPS": "1000"}
    with serving() as endpoint:
        plant.fill(endpoint)
        _point_at(endpoint)
        for line in _COMMANDS:
            assert _command(*line.split()) == 0, line
        plant.update(endpoint, 7)
        assert _command("sync", "--fill-versions") == 0
        for line in ("diff first now", "diff first now --json"):
            assert _command(*line.split()) == 2, "safe shows nothing of the past"
        for name in FORMATS:
            line = f"cohort manifest everybody --output pixels --format {name}"
            assert _command(*line.split()) == 2, "pixels cannot be fetched by what safe shows"
        for misbehaviour in _misbehaviours():
            with _misbehaving(endpoint, misbehaviour):
                _command("sync")
                _command("search", "--equal", f"PatientID={plant.text('PatientID')}")
        with _unexpected_errors():
            _command("sync")
        sys.stdin = io.StringIO(plant.text("PatientID", 1))
        _command("erase", "--patient", "-", "--yes")
        _command("erase", "--patient", plant.text("PatientID", "nobody"), "--yes")


def _keep_a_cohort() -> None:
    Path("cohorts").mkdir()
    Path("cohorts/everybody.yaml").write_text("cohort: everybody\nlevel: series\nsteps: []\n")


_COMMANDS = (
    "sync", "sync --json", "enrich --all --dry-run", "enrich --all", "status", "status --json",
    "reconcile", "publish --json", "maintain", "snapshots", "tag first", "cohort list",
    "cohort run everybody", "cohort freeze everybody", "cohort verify everybody",
    "cohort diff everybody everybody --json", "cohort export everybody --output all.csv",
    "cohort export everybody --output all.xlsx", "report --output lake.html --suppress-below 0",
    "report --cohort everybody --output all.html", "key rotate", "rebuild", "events",
    "emulator --help",
)  # fmt: skip


def _command(*arguments: str) -> object:
    """Give a command, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        app.app(arguments)
    return ended.value.code


@contextmanager
def _unexpected_errors() -> Iterator[None]:
    """Have the library raise what nobody expects, with a value in its text."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError(plant.text("error message"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cohortlake.publish.publisher.key_to_publish_with", fail)
        patch.setattr("cohortlake.history.image_sets.version", fail)
        yield


def keyed(root: str) -> None:
    """Take up keys that AWS keeps, before any other call of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cohortlake.privacy.key_store.new_key", lambda: plant.KEY)
        sources = ("lake", "kms:alias/canary", "secretsmanager:canary")
        for before, after in itertools.pairwise(sources):
            print(_keyed(root, before).rotate_key(after))
        print(_keyed(root, sources[-1]).publish())
        told(_keyed(root, "secretsmanager:elsewhere").publish)


def _keyed(root: str, source: str) -> Sync:
    return Sync(Settings((DATASTORE,), root, patient_key=source))


def identified(root: str) -> None:
    """Ask for what is identified data by intention: only what is logged must not be."""
    os.environ |= {"COHORTLAKE_ROOT": root, "COHORTLAKE_TPS": "1000"}
    with serving() as endpoint:
        plant.fill(endpoint)
        _point_at(endpoint)
        between = "--between=updatedAt=2020-01-01..2030-01-01"
        _command("search", between)
        _command("search", between, "--output", "found.parquet")
        _command("sync")
        _command("privacy", "review", "--at-least", "1")
        ids = [plant.text("PatientID", 0), plant.text("AccessionNumber", 0)]
        for column, id_ in zip(("PatientID", "AccessionNumber"), ids, strict=True):
            Path("ids.csv").write_text(f"{column},no\n{id_},1\n{id_},2\n")
            _command("key", "lookup", "--ids", "ids.csv", "--column", column)
            _command("key", "lookup", "--ids", "ids.csv", "--column", id_)
        Path("ids.csv").unlink()


def orchestrate(root: str) -> None:
    """Run every job of the deployment under Dagster, to good ends and bad ones."""
    import dagster as dg

    os.environ |= {"COHORTLAKE_ROOT": root, "COHORTLAKE_TPS": "1000", "COHORTLAKE_HEADERS": "all"}
    _keep_a_cohort()
    with serving() as endpoint:
        plant.fill(endpoint)
        _point_at(endpoint)
        definitions, instance = importlib.import_module("pipelines.definitions").defs, _instance()

        def run(job: str, *assets: str) -> None:
            keys = [dg.AssetKey(asset) for asset in assets]
            definitions.resolve_job_def(job).execute_in_process(
                instance=instance, asset_selection=keys or None, raise_on_error=False
            )

        run("tick")
        # What follows in each job is the same: it runs in the first one and in the last one.
        run("fill_versions", "older_versions")
        run("reconcile", "study_date_sweeps")
        run("reconcile_undated", "undated_sweeps")
        run("hints", "event_hints")
        run("maintain")
        run("headers")
        plant.update(endpoint, 9)
        endpoint.now += timedelta(hours=2)
        for misbehaviour in itertools.islice(_misbehaviours(), 2):  # which are not tried again
            with _misbehaving(endpoint, misbehaviour):
                run("tick")
        with _unexpected_errors():
            run("tick")
        statuses = [run.status.value for run in instance.get_runs()]
        print("runs", statuses.count("SUCCESS"), "good", statuses.count("FAILURE"), "bad")


def _instance() -> Any:
    import dagster as dg

    home = Path(os.environ["DAGSTER_HOME"])
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    return dg.DagsterInstance.get()


def note(root: str) -> None:
    """Run the notebooks as one, and keep it with all that they showed."""
    import nbformat
    from nbclient import NotebookClient

    os.environ["COHORTLAKE_ROOT"] = root
    paths = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    first, *others = (nbformat.read(path, as_version=4) for path in paths)
    first.cells += [cell for notebook in others for cell in notebook.cells]
    for number, cell in enumerate(first.cells):
        cell.id = str(number)
    # What nbclient logs at other levels is what the notebook shows.
    logging.disable(logging.INFO)
    NotebookClient(first, timeout=120, allow_errors=True).execute()
    logging.disable(logging.NOTSET)
    nbformat.write(first, "all.ipynb")


def die(root: str) -> None:
    """Be killed in the middle of a publication, with a core dump if the system lets it."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    cohortlake.protect_process()
    with serving() as endpoint, pytest.MonkeyPatch.context() as patch:
        plant.fill(endpoint)
        patch.setattr("cohortlake.publish.rows.keyed_sql", lambda *_: os.abort())
        _sync(root, endpoint).run()


def _point_at(endpoint: Endpoint) -> None:
    os.environ["AWS_ENDPOINT_URL_MEDICAL_IMAGING"] = endpoint.url
    os.environ["COHORTLAKE_DATASTORES"] = DATASTORE


def _sync(root: str, endpoint: Endpoint) -> Sync:
    _point_at(endpoint)
    return Sync(Settings(datastores=(DATASTORE,), root=root, tps=1000, workers=4))


def _equal(patient_id: str) -> dict[str, object]:
    return {"operator": "EQUAL", "values": [{"DICOMPatientId": patient_id}]}


@contextmanager
def _misbehaving(endpoint: Endpoint, misbehaviour: tuple[int, bytes, str]) -> Iterator[None]:
    endpoint.misbehaviour = misbehaviour
    try:
        yield
    finally:
        endpoint.misbehaviour = None


def _misbehaviours() -> Iterator[tuple[int, bytes, str]]:
    """Yield answers of which each quotes what it should not."""
    message = b'{"message": "not good: %s"}' % plant.text("error message").encode()
    for status, error in (
        (400, "ValidationException"),
        (400, "ExpiredTokenException"),
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (409, "ConflictException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
        (503, ""),
    ):
        yield status, message, error
    yield 200, message, ""
    yield 200, plant.text("error message").encode(), ""
    yield 502, b"<html>" + plant.text("error message").encode(), ""
    tags = b'{"DICOMPatientId": "%s"}' % plant.text("PatientID").encode()
    summary = b'{"imageSetId": 7, "DICOMTags": %s}' % tags  # an id is text
    yield 200, b'{"imageSetsMetadataSummaries": [%s]}' % summary, ""


JOBS = {
    job.__name__: job
    for job in (fill, ask, fail, erase, keyed, command, identified, orchestrate, note, die)
}

if __name__ == "__main__":
    main(*sys.argv[1:])
