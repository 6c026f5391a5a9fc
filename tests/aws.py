"""SQS and S3 over HTTP, by moto's server.

moto looks whether an object is there and writes it in two steps. S3 takes them as one, and
the lake relies on that, so requests are answered one at a time.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    """Serve in a thread for as long as the block lasts, and give the endpoint's URL."""
    moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with one_at_a_time:
            return list(moto(environ, start_response))

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def allow(patch: pytest.MonkeyPatch, url: str, *statements: dict[str, Any]) -> None:
    """Become a user who may do what some policy statements allow, and nothing else."""
    iam, name = boto3.client("iam", region_name="us-east-1", endpoint_url=url), uuid.uuid4().hex
    iam.create_user(UserName=name)
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow"} | statement for statement in statements],
    }
    if statements:
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)  # rights count from now on
