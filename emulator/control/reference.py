"""The reference page `docs/reference/emulator.md`, generated from the code.

Operations come from the service model, options and commands from the command line, routes from the
admin API. This module holds only the text that code cannot give.
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
from emulator.service.dicomweb import DicomWeb
from emulator.service.faults import Behaviour
from emulator.service.model import HealthImaging
from emulator.service.operations import Operations
from emulator.world import World, build

_INTRODUCTION = """\
# HealthImaging emulator

A local HTTP endpoint that behaves like AWS HealthImaging for the AWS command line, boto3 and the
JavaScript SDK. It reads its routes, shapes, limits and error codes from botocore's service model.
It holds synthetic or your own image sets, has a simulated clock, and injects faults on demand.

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

With Cohortlake installed, the same commands are `cohortlake emulator serve`, `cohortlake emulator
live` and so on. In a test:

```python
with emulator.running(synthetic=2000, seed=1, quota=25) as healthimaging:
    client = boto3.client(
        "medical-imaging",
        endpoint_url=healthimaging.endpoint,
        config=Config(inject_host_prefix=False),
    )
    healthimaging.admin.live(days=7, seed=3)
```

SDKs put `runtime-` before the host of most operations, also before a custom endpoint. The variable
and the setting above switch this off. In the JavaScript SDK use `disableHostPrefix: true`.
"""

_MODELLED = (
    "Every limit of the service model: required members, minima, maxima, lengths, patterns, enums, "
    "unions. A request that breaks a limit gets a ValidationException that names the member, never "
    "its value.",
    "Error answers in rest-json form, with the statuses of the model.",
    "The four uses of SearchImageSets in AWS's guide, and every other searchable attribute; up to "
    "two filters, both of which must match; three sort fields, ascending and descending; "
    "`updatedAt` descending by default.",
    "A study time that is absent from a filter means 00:00.",
    "Keyset paging: every page costs the same, however many pages come before it. If a row changes "
    "while a client pages by `updatedAt`, the row moves in the order.",
    "Versions: a change keeps `createdAt`, gets a new `updatedAt` and the next version. One change "
    "can apply to every image set of a study.",
    "A series that is imported again with conflicting tags becomes one more image set, with "
    "`isPrimary` false.",
    "If a DICOM tag is absent, its key is absent.",
    "Reading the metadata of an archived image set moves it back to the frequent tier. The stats "
    "count the moves.",
    "Metadata documents in the form of the service: DS and IS as padded texts, binary numbers as "
    "numbers, empty values as null, sequences as lists, private elements under their tag with "
    "`DICOMVRs` beside them, and a size for each image frame. A document is made when somebody "
    "asks for it, and agrees with the summary.",
    "The headers of synthetic image sets: scanners of many makers, kernels, contrast, several "
    "echoes and b-values, localizers, tilted gantries, missing and repeated slices, mixed "
    "spacings, enhanced multi-frame instances, private elements, and one wrong "
    "value in about every fifth CT, MR or PET series. `GET /_emulator/plan` says what is special "
    "about one.",
    "Updates and removals of attributes, removal of instances and series, reverting, copies of "
    "some instances, and copies into another image set. Each makes a new version with its own "
    "document, and the summary follows. The DICOM constraints of AWS's guide hold, with `force` "
    "and for primary image sets. If `latestVersionId` is not the latest, the answer is a "
    "ConflictException.",
    "Tags of data stores and image sets.",
    "Two DICOMweb operations, on the address of all others: at AWS they have a host of their own. "
    "Without `imageSetId` they read the primary image set of the series.",
    "Import jobs wait, run and end by the simulated clock. A folder below `--s3-root` stands for "
    "a bucket. At its end a job imports the files of its prefix, or fails and says why. A "
    "synthetic hospital has the jobs of its last 90 days; some failed, one runs, one waits.",
    "The `Date` header shows the simulated clock.",
    "Synthetic data: the same seed and the same `--now` give the same bytes. With a stopped clock "
    "the days of `live` are the same too. Names, studies and identifiers are invented.",
)

_ASSUMED = (
    ("Which of its two ends BETWEEN includes", "Both, or as `--between` says."),
    ("BETWEEN with the later end first", "ValidationException."),
    ("BETWEEN on anything but a time", "ValidationException."),
    ("EQUAL on a time", "Matches exactly that moment."),
    ("Two filters on the same attribute, or any other pair", "Both must match."),
    (
        "Unusable study dates (absent, empty, not a real yyyyMMdd)",
        "Without `--undated-match` no filter on the study date matches them. A sort by study date "
        "lists them as the lowest, or leaves them out with `--no-undated-sort`.",
    ),
    ("Unusable study times", "They count as 00:00."),
    ("How soon a search finds a change", "At once, or after `--index-lag-ms` of simulated time."),
    (
        "How long a nextToken is valid",
        "Always, also after restarts and changes. `--token-refusal-rate` refuses some. With a "
        "different data store or other criteria the answer is a ValidationException. The page "
        "size may change.",
    ),
    ("The page size without `maxResults`", "50."),
    ("A last page that is full", "Has no nextToken."),
    ("`sort` in the answer", "Always present, also for the default."),
    ("Whether reads or moves between tiers change `updatedAt`", "They do not."),
    (
        "GetImageSet, GetImageSetMetadata and ListImageSetVersions on a deleted image set",
        "ResourceNotFoundException. With `--deleted-found` GetImageSet returns the state DELETED, "
        "and ListImageSetVersions lists all versions and the deletion.",
    ),
    (
        "`updatedAt` of a first version in ListImageSetVersions",
        "Absent if it equals `createdAt`, as in AWS's example.",
    ),
    (
        "GetImageFrame after an update that removed the instance",
        "The frame is served, because an earlier version still shows it.",
    ),
    ("DeleteImageSet", "Answers LOCKED and DELETING. The image set is deleted at once."),
    (
        "UpdateImageSetMetadata and CopyImageSet",
        "Answer LOCKED with UPDATING or COPYING. The change is done at once.",
    ),
    (
        "The Patient level of a primary image set",
        "Changes with `includeStudyImageSets` only. With it, other image sets of the study get the "
        "Patient and Study level of the request.",
    ),
    (
        "`promoteToPrimary`",
        "Refused while another image set of the series is primary. The source stays.",
    ),
    ("`revertToVersionId` that does not exist", "ResourceNotFoundException."),
    (
        "`imageSetWorkflowStatus`",
        "CREATED for the first version, also of a copy, and UPDATED for later ones.",
    ),
    ("A member of the wrong JSON type", "ValidationException."),
    ("An empty DICOM element in a P10 file", "Absent from the summary, null in the metadata."),
)

_ABSENT = (
    "SigV4 signatures and rights are not checked: all credentials work.",
    "An import job writes no output files, and does not apply `importConfiguration`. An instance "
    "that is new in a known series makes one more image set, which is not primary.",
    "CreateDatastore, DeleteDatastore, EventBridge events and KMS keys.",
    "`overrides` in the properties of a version that was forced.",
    "Image frames are not compressed as HTJ2K: those of P10 files have the bytes of the file, and "
    "those of synthetic image sets are random bytes of the size that the document says. So the "
    "pixel checksums of synthetic frames are invented, and P10 files have no smallest and largest "
    "pixel value.",
    "An image set's storage tier does not change with the clock.",
    "Conflicts between P10 files are detected per series. If two series of one study have "
    "different study attributes, both stay primary.",
    "Times in an import through the admin API are not checked, so they can lie in the future.",
    "Constant time for a search that filters by one attribute and sorts by another, with more "
    "than 2,000 matches: its first page may read the whole sort index.",
    "NumberOfStudyRelatedSeries and NumberOfStudyRelatedInstances stay as loaded when the admin "
    "API imports more into a study.",
)

_FAULTS = (
    ("`throttled`", "`quota`, `burst`", "429 ThrottlingException, one bucket per operation"),
    ("`failed`", "`error_rate`", "500 InternalServerException"),
    ("`reset`", "`reset_rate`", "The connection is reset (RST) without an answer"),
    (
        "`cut_short`",
        "`cut_rate`",
        "Half the body under the full Content-Length, then a closed connection",
    ),
    ("`cut_truncated`", "`cut_rate`", "Half the body as a complete HTTP answer with status 200"),
    ("`cut_empty`", "`cut_rate`", "No body, as a complete HTTP answer with status 200"),
    ("`token_refused`", "`token_refusal_rate`", "400 ValidationException for a valid nextToken"),
    (
        "`document_cut`",
        "`bad_document_rate`, `spoil`",
        "Half of a gzip document, as a whole answer",
    ),
    ("`document_empty`", "`bad_document_rate`, `spoil`", "A document without any bytes"),
    ("`document_not-gzip`", "`bad_document_rate`, `spoil`", "The document as plain JSON"),
    ("`document_not-json`", "`bad_document_rate`, `spoil`", "An HTML page as gzip"),
    ("`document_not-metadata`", "`spoil`", "Other JSON as gzip"),
    (
        "`document_other-image-set`",
        "`bad_document_rate`, `spoil`",
        "The document under the id of another image set",
    ),
    (
        "`document_huge`",
        "`spoil`, `huge_document_mb`",
        "A valid document of 200 MB, sent in pieces without Content-Length",
    ),
    (
        "`document_huge-body`",
        "`spoil`, `huge_document_mb`",
        "The same, and large as gzip too: about three quarters of the JSON",
    ),
    ("`document_gone`", "`spoil`", "404 for an image set that a search finds"),
)


def render(app: typer.Typer) -> str:
    """Returns the page as Markdown.

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
            "AWS does not document these points. A client should work with either behaviour.\n",
            _table(("Point", "Here"), _ASSUMED),
            "## What is missing\n",
            _bullets(_ABSENT),
            "## Options of `serve`\n",
            "You can change those marked * at run time through the admin API, under their name "
            "with underscores.\n",
            _table(("Option", "Default", "What it does"), _options()),
            "## Faults\n",
            "They are drawn with `--seed`, in the order in which requests arrive. The stats use "
            "the names on the left.\n",
            _table(("Fault", "Behaviour", "What the client sees"), _FAULTS),
            "## Commands\n",
            _table(("Command", "What it does"), _commands(app)),
            "## Admin API\n",
            "JSON in, JSON out, without faults or latency. `datastoreId` may name the data store; "
            "the first is the default.\n",
            _admin(world),
        ]
    return "\n".join(parts)


def _operations(world: World) -> str:
    emulated = _service(world).handlers
    rows = (
        (f"`{one.name}`", "yes" if one.name in emulated else "no: 501 NotEmulated")
        for one in HealthImaging().operations
    )
    dicomweb = ((f"`{name}`", "yes, DICOMweb") for name in DicomWeb(_service(world).reading).paths)
    return _table(("Operation", "Emulated"), (*rows, *dicomweb))


def _service(world: World) -> Operations:
    return Operations(world.store, world.clock, world.faults, world.stats)


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
        for one in Admin(world, _service(world).import_jobs).routes
    )
    return _table(("Route", "Takes", "What it does"), rows)


def _doc(documented: object) -> str:
    return inspect.getdoc(documented) or ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _bullets(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)
