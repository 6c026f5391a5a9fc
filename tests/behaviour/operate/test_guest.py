"""The library changes nothing that is global in the process that imports it."""

from __future__ import annotations

import importlib
import json
import locale
import logging
import os
import pkgutil
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from endpoint import DATASTORE, Endpoint
from small_hospital import fill

# What the command line alone may change.
NOT_IMPORTED = ("cohortlake.cli.app",)


def state_of_the_process() -> dict[str, Any]:
    """All that is global in a process and that a library might change, as text."""
    import matplotlib
    import pandas as pd

    umask = os.umask(0)
    os.umask(umask)
    loggers = [logging.getLogger(name) for name in ("", "boto3", "botocore", "urllib3", "dagster")]
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    options = pd.describe_option(_print_desc=False).split("\n")
    return {
        "log record factory": repr(logging.getLogRecordFactory()),
        "logger class": repr(logging.getLoggerClass()),
        "loggers": [repr((g.name, g.level, g.handlers, g.filters, g.propagate)) for g in loggers],
        "logging disabled": logging.root.manager.disable,
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "umask": umask,
        "signal handlers": {
            number.name: repr(signal.getsignal(number)) for number in signal.valid_signals()
            if isinstance(number, signal.Signals)
        },
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "locale": locale.setlocale(locale.LC_ALL),
        "time zone": time.tzname,
        "warning filters": [repr(each) for each in warnings.filters],
        "hooks": [repr(sys.excepthook), repr(threading.excepthook), repr(sys.displayhook)],
        "socket timeout": socket.getdefaulttimeout(),
        "pandas": [line for line in options if "[default:" in line],
        "matplotlib": repr(sorted((k, v) for k, v in matplotlib.rcParams.items())),
        "matplotlib's backend": matplotlib.rcParams._get("backend").__class__.__name__,
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }  # fmt: skip


def use_everything(root: str) -> None:
    import cohortlake
    from cohortlake import Settings, Sync, report

    for module in pkgutil.walk_packages(cohortlake.__path__, "cohortlake."):
        if module.name not in NOT_IMPORTED:
            importlib.import_module(module.name)
    settings = Settings(datastores=(DATASTORE,), root=root, tps=1000, workers=4, privacy="limited")
    Sync(settings).run()
    Sync(settings).publish()
    with cohortlake.open(root) as lake:
        cohort = lake.cohort("all", level="series").where("Modality IS NOT NULL")
        cohort = cohort.split(a=0.5, b=0.5)
        cohort.table_one(by="split")
        cohort.attrition().save(f"{root}/attrition.svg")
        cohort.export(f"{root}/all.xlsx")
        report.write(lake, f"{root}/report.html")


def main(root: str) -> None:
    # Libraries that a host imports itself, for what they change at import is theirs.
    for name in ("boto3", "duckdb", "deltalake", "pandas", "pyarrow.compute", "tableone"):
        importlib.import_module(name)
    before = state_of_the_process()
    use_everything(root)
    after = state_of_the_process()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    json.dump(changed, sys.stdout, default=str)


def test_it_changes_nothing_that_is_global(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(endpoint, 60)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = (sys.executable, __file__, str(tmp_path / "lake"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


if __name__ == "__main__":
    main(*sys.argv[1:])
