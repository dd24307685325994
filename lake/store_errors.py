"""What an object store refuses, in words that a user can act on."""

from __future__ import annotations

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from lake.errors import StorageError

STORE_ERRORS = (ClientError, BotoCoreError, S3UploadFailedError)

_UNKNOWN_KEY = "set TIDEMILL_S3_ACCESS_KEY_ID and TIDEMILL_S3_SECRET_ACCESS_KEY to a pair the store knows"
_REMEDIES = {
    "NoSuchKey": "check the name: nothing is stored under it",
    "NoSuchBucket": "create the bucket, or set TIDEMILL_BUCKET to one that exists",
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "XAdminUserNotFound": _UNKNOWN_KEY,  # versitygw's word for it
    "SignatureDoesNotMatch": "set TIDEMILL_S3_SECRET_ACCESS_KEY to the secret that belongs to the access key",
    "AccessDenied": "give this key the rights to list, read and write the bucket",
    "403": "give this key the rights to list, read and write the bucket, or correct the key and secret",
    "404": "check the bucket and the key; 'tidemill doctor' tests both",
    "InsufficientStorage": "free space on the store's disk and run 'tidemill up' again",
    "InternalError": "look at the store's log, and at the free space on its disk ('tidemill doctor')",
    "EntityTooLarge": "free space on the store's disk or raise its limit",
}


def storage_error(error: Exception, where: str, endpoint_url: str | None) -> StorageError:
    """One of STORE_ERRORS as an error with a remedy. An upload's error tells in its cause what the store has said."""
    cause = error.__cause__ or error.__context__ if isinstance(error, S3UploadFailedError) else error
    if isinstance(cause, ClientError):
        code = str(cause.response["Error"]["Code"])
        got = f"{code} {cause.response['Error'].get('Message', '')}".strip()
        remedy = _REMEDIES.get(code, "run 'tidemill doctor'")
    elif isinstance(cause, NoCredentialsError):
        got = "no credentials"
        remedy = "set TIDEMILL_S3_ACCESS_KEY_ID and TIDEMILL_S3_SECRET_ACCESS_KEY, or what boto3 reads otherwise"
    else:
        got = f"{type(error).__name__}: {error}"
        remedy = f"check that {endpoint_url} is up ('tidemill up', 'tidemill doctor')"
    return StorageError(where, expected="an answer from the store", got=got, remedy=remedy)
