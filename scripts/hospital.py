"""An emulated hospital in its own process, and the settings that point at it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COHORTLAKE = Path(sys.executable).parent / "cohortlake"


@dataclass(frozen=True)
class Hospital:
    """A running emulator.

    Attributes:
        endpoint: Where it listens.
        datastore_id: Its data store.
    """

    endpoint: str
    datastore_id: str

    def environment(self, root: Path) -> dict[str, str]:
        """Return the environment variables for a lake of this data store."""
        return {
            "AWS_ACCESS_KEY_ID": "emulated",
            "AWS_SECRET_ACCESS_KEY": "emulated",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_MEDICAL_IMAGING": self.endpoint,
            "COHORTLAKE_DATASTORES": self.datastore_id,
            "COHORTLAKE_ROOT": str(root),
            "COHORTLAKE_TPS": "200",
            # The emulator deletes at random and months are small, so a large share may go at once.
            "COHORTLAKE_MAX_DELETED_SHARE": "1",
            # The patients are synthetic, so the demo can show dates. The default is `safe`.
            "COHORTLAKE_PRIVACY": "limited",
            "DAGSTER_HOME": os.environ.get("DAGSTER_HOME", str(REPOSITORY)),
        }


@contextmanager
def serving(*options: str | Path) -> Iterator[Hospital]:
    """Serve on a free port until the block ends.

    Args:
        *options: Options of `cohortlake emulator serve`.
    """
    command: Sequence[str | Path] = (COHORTLAKE, "emulator", "serve", "--port", "0", *options)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        first_line = process.stdout.readline()
        if not first_line:
            sys.exit("the emulator did not start; its message is above")
        served = json.loads(first_line)
        yield Hospital(served["endpoint"], served["datastores"][0])
    finally:
        process.terminate()
        process.wait(timeout=30)
        if process.stdout:
            process.stdout.close()
