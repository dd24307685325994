"""What the object store can do, found out at start-up on a few small objects of the probe's own."""

from __future__ import annotations

import uuid
from typing import Any

from botocore.exceptions import ClientError

from lake.bucket import Bucket
from lake.errors import StorageError
from lake.layout import PROBE
from lake.records import Record

_REMEDY = (
    "use a store with the whole S3 object API: AWS, MinIO, Ceph, or the embedded one (unset TIDEMILL_S3_ENDPOINT_URL)"
)
_REFUSED = ("412", "PreconditionFailed")


class StoreCapabilities(Record):
    """What is nice to have. Listing, reading, writing, deleting and multipart uploads are there when one of these is.

    Without `if_match` a changed object is known by the ETag of the answer; without `conditional_put` commits are
    decided in the ledger alone, as they always are.
    """

    if_match: bool
    conditional_put: bool

    def __str__(self) -> str:
        optional = {"If-Match": self.if_match, "conditional put": self.conditional_put}
        told = [f"{name}: {'yes' if there else 'no (not needed)'}" for name, there in optional.items()]
        return ", ".join(["list, read, write, delete, multipart: yes", *told])


def probe_store(bucket: Bucket) -> StoreCapabilities:
    """Try what Tidemill asks of a store, below `probe/`, and clean up.

    Raises StorageError with a remedy when something essential is missing.
    """
    prefix = f"{PROBE}{uuid.uuid4().hex}/"
    try:
        _require_objects(bucket, f"{prefix}plain")
        _require_multipart(bucket, f"{prefix}multipart")
        _require_whole_listings(bucket, f"{prefix}pages/")
        found = StoreCapabilities(
            if_match=_refuses(bucket, "get_object", f"{prefix}plain", IfMatch='"0"'),
            conditional_put=_refuses(bucket, "put_object", f"{prefix}plain", IfNoneMatch="*", Body=b"again"),
        )
    finally:
        bucket.delete_folder(prefix)
    left = [ref.key for ref in bucket.list(prefix)]
    _require(not left, bucket, "deleted objects gone from the listing", str(left))
    return found


def _require_objects(bucket: Bucket, key: str) -> None:
    """What is written is listed at once, with the ETag it is read with; a second version has another ETag."""
    seen = []
    for body in (b"first", b"second"):
        bucket.put(key, body)
        listed = list(bucket.list(key))
        _require([ref.key for ref in listed] == [key], bucket, "a written object in the next listing", str(listed))
        got = bucket.open_version(listed[0]).read()
        _require(got == body, bucket, f"the last bytes written, {body!r}", repr(got))
        seen.append(listed[0].etag)
    _require(seen[0] != seen[1], bucket, "a new ETag for new content", f"{seen[0]} twice")


def _require_multipart(bucket: Bucket, key: str) -> None:
    """Large files go up in parts. A single small part is allowed, as it is the last one."""
    target: dict[str, Any] = {"Bucket": bucket.name, "Key": key}
    with bucket.explained(f"{key} (multipart upload)"):
        target["UploadId"] = bucket.client.create_multipart_upload(**target)["UploadId"]
        try:
            etag = bucket.client.upload_part(**target, PartNumber=1, Body=b"part")["ETag"]
            parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
            bucket.client.complete_multipart_upload(**target, MultipartUpload=parts)
        except ClientError:
            bucket.client.abort_multipart_upload(**target)
            raise
    got = bucket.get(key)
    _require(got == b"part", bucket, "the bytes of a multipart upload", repr(got))


def _require_whole_listings(bucket: Bucket, prefix: str) -> None:
    """No key is lost between two pages, whatever the names: `-` and `.` come before `/`, and other characters after."""
    keys = [f"{prefix}{name}" for name in ("a-b", "a.b", "a/b", "a0")]
    for key in keys:
        bucket.put(key, b"page")
    listed = [ref.key for ref in Bucket(bucket.address, page_size=1).list(prefix)]
    _require(listed == keys, bucket, f"all of {keys} in a listing, in order", str(listed))


def _refuses(bucket: Bucket, action: str, key: str, **condition: Any) -> bool:
    """Whether the store refuses an action whose condition does not hold, as the HTTP standard says."""
    with bucket.explained(key):
        try:
            getattr(bucket.client, action)(Bucket=bucket.name, Key=key, **condition)
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in _REFUSED:
                return True
            if code == "NotImplemented":
                return False
            raise
    return False


def _require(holds: bool, bucket: Bucket, expected: str, got: str) -> None:
    if not holds:
        raise StorageError(
            f"s3://{bucket.name} at {bucket.address.endpoint_url}", expected=expected, got=got, remedy=_REMEDY
        )
