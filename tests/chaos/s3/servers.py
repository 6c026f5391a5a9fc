"""Two S3 servers that share no code, each in a process of its own: moto's and SeaweedFS.

`scripts/s3_server.sh` installs SeaweedFS in `var/`.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cluster.servers import LOOPBACK, REPOSITORY, free_port, running, s3, until

from chaos.run import NO_AWS

_WEED = REPOSITORY / "var/seaweedfs/bin/weed"


@contextmanager
def seaweedfs(log: Path) -> Iterator[str]:
    """Serve S3 by SeaweedFS with an empty folder of its own, and give its URL."""
    with tempfile.TemporaryDirectory(prefix="cohortlake-s3-", ignore_cleanup_errors=True) as folder:
        ports = {part: (free_port(), free_port()) for part in ("master", "volume", "filer", "s3")}
        command = [
            str(_WEED), "server", f"-dir={folder}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
            *(f"-{part}.port={http}" for part, (http, _) in ports.items()),
            *(f"-{part}.port.grpc={grpc}" for part, (_, grpc) in ports.items()),
            "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
            "-master.telemetry=false", "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64", "-volume.max=100", "-volume.preStopSeconds=0",
        ]  # fmt: skip
        # The credentials are those of its only user: it checks the signature of each request.
        environment = os.environ | NO_AWS | {"HOME": folder, "TMPDIR": folder}
        url = f"http://{LOOPBACK}:{ports['s3'][0]}"
        with running(command, log, environment, ends_by=signal.SIGKILL) as process:
            until(lambda: _answers(url), "SeaweedFS starts", process)
            yield url


def _answers(url: str) -> bool:
    """Return whether a server answers, even if it refuses a request without a signature."""
    server = urlsplit(url)
    with closing(HTTPConnection(str(server.hostname), server.port)) as connection:
        try:
            connection.request("GET", "/")
            return connection.getresponse().status in (HTTPStatus.OK, HTTPStatus.FORBIDDEN)
        except OSError:
            return False


SERVERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "moto": s3,
    "seaweedfs": seaweedfs,
}

MARKS = {
    "moto": [],
    "seaweedfs": [
        pytest.mark.skipif(
            not _WEED.exists(), reason="SeaweedFS is not there; `make chaos` installs it"
        )
    ],
}
"""The marks of tests on each server."""
