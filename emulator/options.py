"""The options of a run of the emulator, with their names, defaults and help texts.

The command line, `running` and the reference page are all made from the fields of `Options`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import typer

from emulator.service.faults import Behaviour


@dataclass(frozen=True, kw_only=True)
class Options(Behaviour):
    """The data to serve, the address, the clock, and the behaviour of the service.

    Raises:
        ValueError: If two options contradict each other or one is out of range.
    """

    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 0
    synthetic: Annotated[
        int, typer.Option(help="Number of synthetic image sets, imported over three years.")
    ] = 0
    series_size: Annotated[
        float,
        typer.Option(
            help="Factor of the number of instances in a synthetic series: 0.1 makes small "
            "metadata documents, 3 makes some of more than 5 MB."
        ),
    ] = 1.0
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0
    load: Annotated[
        list[Path],
        typer.Option(help="NDJSON file of summaries in wire form, served unchanged. Repeatable."),
    ] = field(default_factory=list)
    dicom: Annotated[
        list[Path],
        typer.Option(help="Folder of DICOM P10 files, searched recursively. Repeatable."),
    ] = field(default_factory=list)
    s3_root: Annotated[
        Path | None,
        typer.Option(help="Folder whose folders stand for buckets, for StartDICOMImportJob."),
    ] = None
    datastores: Annotated[int, typer.Option(help="Number of data stores.")] = 1
    datastore_id: Annotated[
        str, typer.Option(help="Id of the first data store; by default made from the seed.")
    ] = ""
    db: Annotated[
        Path | None, typer.Option(help="SQLite file for the state; in memory by default.")
    ] = None
    now: Annotated[
        str, typer.Option(help="ISO 8601 time at which the clock starts; the real time by default.")
    ] = ""
    clock: Annotated[
        Literal["running", "stopped"],
        typer.Option(help="A stopped clock moves only when the admin API moves it."),
    ] = "running"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clock not in ("running", "stopped"):
            raise ValueError("clock must be running or stopped")
        if self.datastores < 1 or self.synthetic < 0:
            raise ValueError("datastores must be at least 1, and synthetic must not be negative")
        if not 0 < self.series_size <= 100:
            raise ValueError("series_size must be more than 0, and at most 100")
        if self.datastore_id and not re.fullmatch(r"[0-9a-z]{32}", self.datastore_id):
            raise ValueError("datastore_id must have 32 characters of [0-9a-z]")

    @property
    def behaviour(self) -> Behaviour:
        """Returns the options that may change while the emulator runs."""
        return Behaviour(**{field.name: getattr(self, field.name) for field in fields(Behaviour)})

    @property
    def loads_data(self) -> bool:
        """Returns whether an option loads image sets."""
        return bool(self.synthetic or self.load or self.dicom)
