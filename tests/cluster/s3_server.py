"""An S3 server in a process of its own: prints its URL, and serves until it is ended."""

import signal

from aws import serving

if __name__ == "__main__":
    with serving() as url:
        print(url, flush=True)  # noqa: T201
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
