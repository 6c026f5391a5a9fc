"""SQS and S3 over HTTP, by moto's server.

moto looks whether an object is there and writes it in two steps. S3 takes them as one, and
the lake relies on that, so requests are answered one at a time. moto needs milliseconds for each
object of a list, and looks through its own folders at each request, so both are done here.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

import boto3
import pytest
from moto import backends
from moto.core.responses import ActionResult
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.responses import S3Response
from werkzeug.serving import WSGIRequestHandler, make_server

ACTIONS: list[str] = []
"""The IAM action that each request took, in the order they came."""

_SERVICES = {
    "AmazonSQS": "sqs",
    "AWSGlue": "glue",
    "TrentService": "kms",
    "secretsmanager": "secretsmanager",
}
_BATCHES = {"DeleteMessageBatch": "DeleteMessage"}  # which have no action of their own


def _action(environ: dict[str, Any]) -> str:
    """Name the action, by the tables of actions in the Service Authorization Reference."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    service, _, name = target.partition(".")
    if service in _SERVICES:
        return f"{_SERVICES[service]}:{_BATCHES.get(name, name)}"
    method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
    has_key = len(environ["PATH_INFO"].strip("/").split("/")) > 1
    if not has_key:
        if method == "POST" and query.startswith("delete"):
            return "s3:DeleteObject"
        if method == "GET" and query.startswith("uploads"):
            return "s3:ListBucketMultipartUploads"
        lists = method == "HEAD" or (method == "GET" and "list-type=2" in query)
        return "s3:ListBucket" if lists else f"{method} {query}"
    if "tagging" in query or "acl" in query:
        return f"{method} {query}"
    if method == "DELETE" and "uploadId" in query:
        return "s3:AbortMultipartUpload"
    # Parts of an upload take the right of the whole; POST begins and ends them.
    by_method = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "POST": "Put", "DELETE": "Delete"}
    return f"s3:{by_method[method]}Object"


_by_moto = S3Response.serialized


def _serialized(response: S3Response, result: ActionResult) -> Any:
    if response.data.get("Action") != "ListObjectsV2":
        return _by_moto(response, result)
    return 200, {"Content-Type": "application/xml"}, _xml("ListBucketResult", result.result)


def _xml(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "".join(_xml(name, each) for each in value)
    if isinstance(value, dict):
        content = "".join(_xml(*member) for member in value.items())
    else:
        content = str(value).lower() if isinstance(value, bool) else escape(str(value))
    return f"<{name}>{content}</{name}>"


S3Response.serialized = _serialized  # type: ignore[method-assign]
_modules = frozenset(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: _modules


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    """Serve in a thread for as long as the block lasts, and give the endpoint's URL."""
    moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with one_at_a_time:
            ACTIONS.append(_action(environ))
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
