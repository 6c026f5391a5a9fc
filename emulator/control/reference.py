"""The reference page: what the emulator is, written from what it does.

It owns `docs/reference/emulator.md`. Operations come from the service model, options and commands
from the command line, routes from the admin API; only what no code can tell is written here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import MISSING, fields
from typing import Literal, get_args, get_origin, get_type_hints

import typer

from emulator.control.admin import PREFIX, Admin
from emulator.options import Options
from emulator.service.faults import Behaviour
from emulator.service.model import HealthImaging
from emulator.service.operations import Operations
from emulator.world import World, build

_INTRODUCTION = """\
# HealthImaging emulator

A local HTTP endpoint that the AWS command line, boto3 and the JavaScript SDK take for AWS
HealthImaging. Its routes, shapes, limits and error codes are read from botocore's own service
model. It holds synthetic or your own image sets, keeps a simulated clock, and misbehaves on demand.

This page is generated: `python -m emulator docs > docs/reference/emulator.md`.

## Use it

```console
$ python -m emulator serve --synthetic 20000 --seed 1
{"endpoint": "http://127.0.0.1:43123", "datastores": ["b147a612590e23db7c90a01b21eb803e"]}
$ export AWS_ENDPOINT_URL_MEDICAL_IMAGING=http://127.0.0.1:43123
$ export AWS_DISABLE_HOST_PREFIX_INJECTION=true
$ export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=us-east-1
$ aws medical-imaging search-image-sets --datastore-id b147a612590e23db7c90a01b21eb803e
```

Within the project the same commands are `cohortlake emulator serve`, `cohortlake emulator live` and
so on. In a test:

```python
with emulator.running(synthetic=2000, seed=1, quota=25) as healthimaging:
    client = boto3.client(
        "medical-imaging",
        endpoint_url=healthimaging.endpoint,
        config=Config(inject_host_prefix=False),
    )
    healthimaging.admin.live(days=7, seed=3)
```

SDKs put `runtime-` before the host of most operations, a custom endpoint's too; the variable and
the setting above switch that off, and so does `disableHostPrefix: true` in the JavaScript SDK.
"""

_MODELLED = (
    "Every limit of the service model: required members, minima, maxima, lengths, patterns, enums, "
    "unions. What breaks one is answered with a ValidationException that names the member, never "
    "its value.",
    "Error answers in rest-json form, with the statuses of the model.",
    "The four uses of SearchImageSets in AWS's guide, and every other searchable attribute; up to "
    "two filters, both of which must match; three sort fields, ascending and descending; "
    "`updatedAt` descending by default.",
    "A study time that is absent from a filter means 00:00.",
    "Keyset paging: a page costs the same however deep it lies. A row that changes while a client "
    "pages by `updatedAt` moves, as it must.",
    "Versions: a change keeps `createdAt`, gets a new `updatedAt` and the next version. One change "
    "may touch every image set of a study.",
    "A series that is imported again with tags in conflict becomes a further image set with "
    "`isPrimary` false.",
    "Absent DICOM tags are absent keys.",
    "Reading an archived image set's metadata brings it back to the frequent tier.",
    "The `Date` header shows the simulated clock.",
    "Synthetic data: the same seed and the same `--now` give the same bytes; with a stopped clock "
    "the days of `live` repeat as well. Names, studies and identifiers are invented.",
)

_ASSUMED = (
    ("Which of its ends BETWEEN includes", "Both, or as `--between` says."),
    ("BETWEEN with the later end first", "ValidationException."),
    ("BETWEEN on anything but a time", "ValidationException."),
    ("EQUAL on a time", "Matches that very moment."),
    ("Two filters on the same attribute, or any other pair", "Both must match."),
    (
        "Unusable study dates (absent, empty, no real yyyyMMdd)",
        "No filter on the study date matches them, unless `--undated-match`. A sort by study date "
        "lists them as the lowest, unless `--no-undated-sort`.",
    ),
    ("Unusable study times", "They count as 00:00."),
    ("How soon a search finds a change", "At once, or after `--index-lag-ms` of simulated time."),
    (
        "How long a nextToken lives",
        "For ever, across restarts and changes; `--token-refusal-rate` refuses some. With another "
        "data store or other criteria it is a ValidationException; another page size is fine.",
    ),
    ("The page size without `maxResults`", "50."),
    ("A full last page", "Has no nextToken."),
    ("`sort` in the answer", "Always there, the default included."),
    ("Whether reads or moves between tiers change `updatedAt`", "They do not."),
    (
        "GetImageSet, GetImageSetMetadata and ListImageSetVersions on a deleted image set",
        "ResourceNotFoundException; with `--deleted-found` GetImageSet answers as DELETED, and "
        "ListImageSetVersions lists all versions and the deletion.",
    ),
    (
        "`updatedAt` of a first version in ListImageSetVersions",
        "Absent, as in AWS's example, where it is `createdAt`.",
    ),
    ("DeleteImageSet", "Answers LOCKED and DELETING; the image set is gone at once."),
    ("`imageSetWorkflowStatus`", "CREATED for the first version, UPDATED for later ones."),
    ("A member of the wrong JSON type", "ValidationException."),
    ("An empty DICOM element in a P10 file", "Absent from the summary, null in the metadata."),
)

_ABSENT = (
    "SigV4 signatures are not verified and no right is checked: any credentials do.",
    "Imports through the service, pixel data, copies, metadata updates and resource tags: use "
    "`--dicom`, `--load` and the admin API.",
    "EventBridge events and KMS keys.",
    "Metadata documents of P10 files hold neither binary nor private elements. Those of other "
    "image sets are made up from the summary.",
    "An image set's storage tier does not change with the clock.",
    "Conflicts between P10 files are judged per series: two series of one study whose study "
    "attributes differ both stay primary.",
    "Times in an import through the admin API are taken as given, future ones too.",
    "Constant time for a search that is filtered by one attribute and sorted by another with more "
    "than 2,000 matches: its first page may walk the sort index.",
    "NumberOfStudyRelatedSeries and NumberOfStudyRelatedInstances stay as loaded when the admin "
    "API imports more into a study.",
)

_FAULTS = (
    ("`throttled`", "`quota`, `burst`", "429 ThrottlingException, one bucket per operation"),
    ("`failed`", "`error_rate`", "500 InternalServerException"),
    ("`reset`", "`reset_rate`", "The connection is reset (RST) without an answer"),
    ("`cut_short`", "`cut_rate`", "Half the body under the full Content-Length, then closed"),
    ("`cut_truncated`", "`cut_rate`", "Half the body as a complete HTTP answer with status 200"),
    ("`cut_empty`", "`cut_rate`", "No body, as a complete HTTP answer with status 200"),
    ("`token_refused`", "`token_refusal_rate`", "400 ValidationException for a good nextToken"),
)


def render(app: typer.Typer) -> str:
    """Renders the page.

    Args:
        app: The command line, whose commands the page lists.
    """
    with closing(build(Options())) as world:
        parts = [
            _INTRODUCTION,
            "## Operations\n",
            _operations(world),
            "## What is modelled\n",
            _bullets(_MODELLED),
            "## What is assumed\n",
            "AWS does not document these points. A client should be right either way.\n",
            _table(("Point", "Here"), _ASSUMED),
            "## What is not there\n",
            _bullets(_ABSENT),
            "## Options of `serve`\n",
            "Those marked * may be changed at run time through the admin API, under their name "
            "with underscores.\n",
            _table(("Option", "Default", "What it does"), _options()),
            "## Faults\n",
            "Drawn with `--seed` in the order in which requests arrive. The names on the left are "
            "those in the stats.\n",
            _table(("Fault", "Behaviour", "What the client sees"), _FAULTS),
            "## Commands\n",
            _table(("Command", "What it does"), _commands(app)),
            "## Admin API\n",
            "JSON in, JSON out, without faults or latency. Where an image set is meant, "
            "`datastoreId` may name its data store; the first is the default.\n",
            _admin(world),
        ]
    return "\n".join(parts)


def _operations(world: World) -> str:
    emulated = Operations(world.store, world.clock, world.faults).handlers
    rows = (
        (f"`{one.name}`", "yes" if one.name in emulated else "no: 501 NotEmulated")
        for one in HealthImaging().operations
    )
    return _table(("Operation in the model", "Emulated"), rows)


def _options() -> Iterable[tuple[str, str, str]]:
    hints = get_type_hints(Options, include_extras=True)
    changeable = {field.name for field in fields(Behaviour)}
    for field in sorted(fields(Options), key=lambda field: field.name in changeable):
        kind, option = get_args(hints[field.name])
        dashed = field.name.replace("_", "-")
        name = f"`--{dashed}` / `--no-{dashed}`" if kind is bool else f"`--{dashed}`"
        mark = " *" if field.name in changeable else ""
        default = "" if field.default in ("", None, MISSING) else f"`{field.default}`"
        choices = f" One of {', '.join(get_args(kind))}." if get_origin(kind) is Literal else ""
        yield f"{name}{mark}", default, f"{option.help}{choices}"


def _commands(app: typer.Typer) -> Iterable[tuple[str, str]]:
    for command in app.registered_commands:
        function = command.callback
        name = command.name or getattr(function, "__name__", "")
        yield f"`{name}`", command.help or _doc(function)


def _admin(world: World) -> str:
    rows = (
        (
            f"`{one.method} {PREFIX}{one.path}`",
            f"`{one.example}`" if one.example else "",
            _doc(one.handle),
        )
        for one in Admin(world).routes
    )
    return _table(("Route", "Takes", "What it does"), rows)


def _doc(documented: object) -> str:
    return inspect.getdoc(documented) or ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bullets(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)
