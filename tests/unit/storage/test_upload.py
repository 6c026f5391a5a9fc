"""An upload in parts whose end S3 does not know any more was completed or aborted."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber

from cohortlake.storage.upload import Upload

OBJECT = {"Bucket": "bucket", "Key": "a/b"}


@pytest.mark.parametrize("is_ours", [True, False])
def test_it_was_completed_if_the_object_has_the_mark_of_the_writer(is_ours: bool) -> None:
    client = boto3.client("s3")
    upload = Upload(client, "bucket/a/b")
    mark = {"written-by": upload._id}
    with Stubber(client) as s3:
        s3.add_response("create_multipart_upload", {"UploadId": "one"}, OBJECT | {"Metadata": mark})
        part = OBJECT | {"UploadId": "one", "PartNumber": 1, "Body": ANY}
        s3.add_response("upload_part", {"ETag": "part"}, part)
        # boto3 sent it twice, because the first answer was lost.
        s3.add_client_error("complete_multipart_upload", "NoSuchUpload", http_status_code=404)
        s3.add_response("head_object", {"Metadata": mark if is_ours else {}}, OBJECT)
        upload.write(bytes(8 << 20))
        if is_ours:
            upload.keep()
        else:
            with pytest.raises(ClientError, match="NoSuchUpload"):
                upload.keep()
        s3.assert_no_pending_responses()
