"""The command line: `serve`, and one command for each route of the admin API.

It reads arguments and prints results. See `options` for the options and `control.client` for the
calls.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from emulator import runner
from emulator.control.client import AdminClient, AdminError
from emulator.control.reference import render
from emulator.options import Options
from emulator.service.bad_documents import BAD_DOCUMENTS
from emulator.service.faults import Behaviour
from emulator.world import World

app = typer.Typer(
    no_args_is_help=True,
    help="A local AWS HealthImaging endpoint: serve it, and change its data while it runs.",
)

Endpoint = Annotated[str, typer.Option(help="Endpoint that `serve` printed.")]
DatastoreId = Annotated[str, typer.Option(help="Id of the data store; the first by default.")]
Seed = Annotated[int, typer.Option(help="Seed of the random changes.")]
ImageSetId = Annotated[str, typer.Argument(help="The image set's id.")]
_BEHAVIOUR = {field.name for field in fields(Behaviour)}


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


@contextmanager
def _explained() -> Iterator[None]:
    """Turns an expected error into one line on stderr and exit code 1."""
    try:
        yield
    except (AdminError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _announce(emulator: runner.Emulator, world: World) -> None:
    host = world.options.host
    if not _is_loopback(host):
        typer.echo(
            f"notice: the emulator listens on {host}. It has no TLS and no authentication: anybody "
            "who can reach this address can read and change every image set",
            err=True,
        )
    if world.skipped:
        typer.echo(
            f"notice: {world.skipped} files are not DICOM objects and were skipped", err=True
        )
    _print({"endpoint": emulator.endpoint, "datastores": emulator.datastores})
    sys.stdout.flush()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve_command() -> Callable[..., None]:
    """Returns the function of `serve`, with one parameter for each field of `Options`."""

    def serve(**given: Any) -> None:
        with _explained():
            runner.serve(Options(**given), _announce)

    hints = get_type_hints(Options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=[] if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in sorted(fields(Options), key=lambda field: field.name in _BEHAVIOUR)
    ]
    serve.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return serve


app.command(
    "serve",
    help="Serve until a signal stops it. The first line printed is JSON: endpoint, datastores.",
)(_serve_command())


@app.command()
def clock(
    endpoint: Endpoint,
    seconds: Annotated[float, typer.Option(help="Seconds to move the clock forward.")] = 0.0,
    days: Annotated[float, typer.Option(help="Days to move the clock forward.")] = 0.0,
) -> None:
    """Print the simulated time. With an option, move the clock forward first."""
    with _explained():
        admin = AdminClient(endpoint)
        _print(admin.advance(seconds=seconds, days=days) if seconds or days else admin.clock())


@app.command()
def live(
    endpoint: Endpoint,
    days: Annotated[float, typer.Option(help="Number of simulated days.")] = 1.0,
    seed: Seed = 0,
    over_seconds: Annotated[
        float, typer.Option(help="Real seconds that the changes are spread over.")
    ] = 0.0,
    datastore: DatastoreId = "",
) -> None:
    """Simulate days of imports, corrections, updates, re-imports, moved study dates, deletions."""
    with _explained():
        admin = AdminClient(endpoint)
        _print(admin.live(days, seed=seed, over_s=over_seconds, datastore_id=datastore or None))


@app.command("import")
def import_summaries(
    endpoint: Endpoint,
    file: Annotated[Path, typer.Argument(help="NDJSON file of summaries in wire form.")],
    instances: Annotated[
        int, typer.Option(help="Number of instances of each; 0 takes what the summary suggests.")
    ] = 0,
    datastore: DatastoreId = "",
) -> None:
    """Import image sets. Missing members of a summary get default values."""
    with _explained():
        summaries = [json.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
        admin = AdminClient(endpoint)
        _print(
            admin.import_summaries(summaries, instances=instances, datastore_id=datastore or None)
        )


@app.command()
def update(
    endpoint: Endpoint,
    image_set_id: ImageSetId,
    tag: Annotated[
        list[str], typer.Option(help="A tag as DICOMPatientName=value; `name=` removes the tag.")
    ],
    cascade: Annotated[bool, typer.Option(help="Change every image set of the study.")] = False,
    datastore: DatastoreId = "",
) -> None:
    """Change tags of an image set. This makes a new version."""
    pairs = [pair.partition("=") for pair in tag]
    tags = {name: value or None for name, _, value in pairs}
    with _explained():
        admin = AdminClient(endpoint)
        _print(admin.update(image_set_id, tags, cascade=cascade, datastore_id=datastore or None))


@app.command()
def delete(endpoint: Endpoint, image_set_id: ImageSetId, datastore: DatastoreId = "") -> None:
    """Delete an image set."""
    with _explained():
        AdminClient(endpoint).delete(image_set_id, datastore_id=datastore or None)


@app.command()
def import_job(
    endpoint: Endpoint,
    status: Annotated[str, typer.Option(help="SUBMITTED, IN_PROGRESS, COMPLETED or FAILED.")],
    name: Annotated[str, typer.Option(help="Name of the job.")] = "job",
    message: Annotated[str, typer.Option(help="What the service says about its end.")] = "",
    datastore: DatastoreId = "",
) -> None:
    """Add an import job that has this status now, and print its id. It imports nothing."""
    with _explained():
        admin = AdminClient(endpoint)
        _print(
            admin.add_import_job(status, name=name, message=message, datastore_id=datastore or None)
        )


@app.command()
def document(
    endpoint: Endpoint,
    image_set_id: ImageSetId,
    file: Annotated[Path, typer.Argument(help="JSON file of a metadata document.")],
    datastore: DatastoreId = "",
) -> None:
    """Set the metadata document of an image set. The tags of its summary lie over it."""
    with _explained():
        given = json.loads(file.read_bytes())
        AdminClient(endpoint).put_document(image_set_id, given, datastore_id=datastore or None)


@app.command()
def spoil(
    endpoint: Endpoint,
    image_set_id: Annotated[list[str], typer.Argument(help="Ids of the image sets.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(BAD_DOCUMENTS)}.")],
    times: Annotated[int, typer.Option(help="For how many requests; 0 for all.")] = 0,
    datastore: DatastoreId = "",
) -> None:
    """Make the metadata documents of image sets bad."""
    with _explained():
        AdminClient(endpoint).spoil_documents(
            image_set_id, kind, times=times, datastore_id=datastore or None
        )


@app.command()
def mend(endpoint: Endpoint) -> None:
    """Make all bad documents good again."""
    with _explained():
        AdminClient(endpoint).mend_documents()


@app.command()
def plan(endpoint: Endpoint, image_set_id: ImageSetId, datastore: DatastoreId = "") -> None:
    """Print what is special about a synthetic header: kind, geometry, and a wrong value."""
    with _explained():
        _print(AdminClient(endpoint).plan(image_set_id, datastore_id=datastore or None))


@app.command()
def truth(endpoint: Endpoint, datastore: DatastoreId = "") -> None:
    """Print every current image set as NDJSON, ordered by id."""
    with _explained():
        for line in AdminClient(endpoint).truth_lines(datastore_id=datastore or None):
            sys.stdout.buffer.write(line)


@app.command()
def behave(
    endpoint: Endpoint,
    change: Annotated[
        list[str] | None, typer.Argument(help="Changes as name=value, such as quota=25.")
    ] = None,
) -> None:
    """Print how the service behaves. With arguments, change it first."""
    pairs = [pair.partition("=") for pair in change or ()]
    with _explained():
        admin = AdminClient(endpoint)
        changes = {name.replace("-", "_"): _literal(value) for name, _, value in pairs}
        _print(admin.behave(**changes) if changes else admin.behaviour())


@app.command()
def stats(endpoint: Endpoint) -> None:
    """Print the counts of requests, errors, injected faults and moves between tiers."""
    with _explained():
        _print(AdminClient(endpoint).stats())


@app.command()
def docs() -> None:
    """Print the reference page in Markdown."""
    typer.echo(render(app), nl=False)


def _literal(text: str) -> Any:
    """Returns a JSON number or boolean as such, and anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
