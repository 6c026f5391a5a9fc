"""The options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RootOption = Annotated[
    str | None, typer.Option("--root", help="Root of the lake. Default: COHORTLAKE_ROOT.")
]
DatastoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--datastore", help="Id of a data store. Repeatable. Default: COHORTLAKE_DATASTORES."
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="Privacy policy of published/. Default: COHORTLAKE_PRIVACY. A changed policy writes "
        "every published file again.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OutputOption = Annotated[Path | None, typer.Option(help="A .parquet, .csv or .xlsx file to write.")]

TrustSearchOption = Annotated[
    bool,
    typer.Option(
        "--trust-search",
        help="If GetImageSet is denied, close image sets that two searches do not find, like "
        "COHORTLAKE_TRUST_SEARCH=yes. Do not use it if your rights hide studies or series.",
    ),
]
