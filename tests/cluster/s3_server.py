"""An S3 server in a process of its own: prints its URL, and serves until a signal ends it at once.

All that it holds is in memory. To stop the server in order waits for each connection that is open.
"""

import signal

from aws import serving

if __name__ == "__main__":
    with serving() as url:
        print(url, flush=True)  # noqa: T201
        signal.pause()
