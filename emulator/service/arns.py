"""ARNs of data stores and image sets, made and read."""

from __future__ import annotations

from emulator.data.store import Datastore

ACCOUNT = "123456789012"
REGION = "us-east-1"


def datastore_arn(datastore: Datastore) -> str:
    """Returns the ARN of a data store."""
    return f"arn:aws:medical-imaging:{REGION}:{ACCOUNT}:datastore/{datastore.id}"


def image_set_arn(datastore: Datastore, image_set_id: str) -> str:
    """Returns the ARN of an image set."""
    return f"{datastore_arn(datastore)}/imageset/{image_set_id}"


def parts(arn: str) -> tuple[str, str | None]:
    """Returns the ids of the data store and, if the ARN has one, of the image set."""
    _, datastore_id, *rest = arn.split("/")
    return datastore_id, rest[1] if rest else None
