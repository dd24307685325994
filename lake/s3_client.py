"""The boto3 client: signed as every S3 look-alike takes it, patient, and quick at long listings."""

from __future__ import annotations

import threading
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    from lake.bucket import BucketAddress

# boto3's session is shared by all threads, and must not make two clients at once (its guide, "Multithreading").
_one_at_a_time = threading.Lock()


def s3_client(address: BucketAddress) -> Any:
    """A client for the store of a bucket."""
    with _one_at_a_time:
        client: Any = _session().client(
            "s3",
            endpoint_url=address.endpoint_url,
            aws_access_key_id=address.access_key_id,
            aws_secret_access_key=address.secret_access_key,
            region_name=address.region,
            config=Config(
                signature_version="s3v4",
                retries={"max_attempts": 5, "mode": "standard"},
                connect_timeout=5,
                read_timeout=60,
                s3={"addressing_style": "path"},
                # Newer botocore adds checksum trailers by default, which S3 look-alikes do not all understand.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
    # A store that refuses a PUT before its body has come leaves the connection out of step: the next request on it
    # is read as that body and answered 400. Sending the body at once also saves a round trip.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


@cache
def _session() -> boto3.Session:
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return boto3.Session(botocore_session=session)


def _timestamp(value: Any) -> datetime:
    """botocore guesses the form of every timestamp, which takes two thirds of the time that a long listing costs."""
    try:
        read = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        read = None
    if read is not None and read.tzinfo is not None:
        return read
    guessed: datetime = parse_timestamp(value)
    return guessed
