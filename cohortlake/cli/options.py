"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RootOption = Annotated[
    str | None, typer.Option("--root", help="The lake; COHORTLAKE_ROOT by default.")
]
DatastoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--datastore", help="Data store id, may repeat; COHORTLAKE_DATASTORES by default."
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="What published/ may show; COHORTLAKE_PRIVACY by default. Another policy than before "
        "publishes everything anew.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
OutputOption = Annotated[Path | None, typer.Option(help="A .parquet, .csv or .xlsx file to write.")]

TrustSearchOption = Annotated[
    bool,
    typer.Option(
        "--trust-search",
        help="Where GetImageSet is denied, close what two searches do not find, as "
        "COHORTLAKE_TRUST_SEARCH=yes does. Not if rights hide studies or series.",
    ),
]
