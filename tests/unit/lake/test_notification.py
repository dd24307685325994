"""What events name: every sender's way of writing a key, and one clear error for whatever is not an event."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.notification import MAX_BYTES, EventUnreadable, in_inbox, named_objects

KEYS = [
    "inbox/m/a.txt",
    "inbox/m/a b+c.txt",
    "inbox/m/50%.txt",
    "inbox/m/%20.txt",
    "inbox/m/ümläut 日本.txt",
    "a&b=c?d#e",
]
# S3 keys: any UTF-8 of up to 1,024 bytes but a zero byte, which no listing can show.
keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def record(key: str, source: str = "aws:s3", configuration: str = "Config", name: str = "ObjectCreated:Put") -> Any:
    s3 = {"configurationId": configuration, "bucket": {"name": "tidemill"}, "object": {"key": key, "size": 3}}
    return {"eventVersion": "2.1", "eventSource": source, "eventName": name, "s3": s3}


def from_aws(key: str) -> dict[str, Any]:
    return {"Records": [record(quote_plus(key, safe="/"))]}


def from_minio(key: str) -> dict[str, Any]:
    name = "s3:ObjectCreated:Put"
    return {"EventName": name, "Key": f"tidemill/{key}", "Records": [record(quote_plus(key), "minio:s3", name=name)]}


def from_ceph(key: str) -> dict[str, Any]:
    return {"Records": [record(key, "ceph:s3", "notif1")]}


def from_versitygw(key: str) -> dict[str, Any]:
    return {"Records": [record(key, configuration="webhook-global", name="s3:ObjectCreated:Put")]}


def by_sns(key: str) -> dict[str, Any]:
    return {"Type": "Notification", "TopicArn": "arn:aws:sns:…", "Message": json.dumps(from_aws(key))}


def by_eventbridge(key: str) -> dict[str, Any]:
    detail = {"version": "0", "bucket": {"name": "tidemill"}, "object": {"key": key, "size": 3}}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


SENDERS = [from_aws, from_minio, from_ceph, from_versitygw, by_sns, by_eventbridge]


@pytest.mark.parametrize("sender", SENDERS)
@given(key=st.sampled_from(KEYS) | keys)
def test_the_key_comes_out_as_the_listing_shows_it(sender: Any, key: str) -> None:
    event = sender(key)
    for body in (event, json.dumps(event), json.dumps(event, ensure_ascii=False).encode()):
        assert named_objects(body) == [("tidemill", key)]


@pytest.mark.parametrize("name", ["ObjectCreated:CompleteMultipartUpload", "s3:ObjectRemoved:Delete", "ObjectAcl:Put"])
def test_what_has_happened_is_for_the_listing_to_say(name: str) -> None:
    assert named_objects({"Records": [record("inbox/m/a", name=name)]}) == [("tidemill", "inbox/m/a")]


def test_all_records_count_in_their_order() -> None:
    event = {"Records": [record("b"), record("a"), record("b")]}
    assert named_objects(event) == [("tidemill", "b"), ("tidemill", "a"), ("tidemill", "b")]


@pytest.mark.parametrize("service", ["Amazon S3", "S3"])  # of AWS and of versitygw
def test_a_test_event_names_nothing(service: str) -> None:
    event = {"Service": service, "Event": "s3:TestEvent", "Time": "2026-01-01T00:00:00Z", "Bucket": "tidemill"}
    assert named_objects(event) == []
    assert named_objects({"Type": "Notification", "Message": json.dumps(event)}) == []


def test_only_dropped_objects_of_the_own_bucket_wake_each_once() -> None:
    named = [("t", "inbox/m/b"), ("t", "inbox/m/a"), ("other", "inbox/m/a"), ("t", "logs/m/x"), ("t", "inbox/m/b")]
    assert in_inbox(named, "t") == [("t", "inbox/m/b"), ("t", "inbox/m/a")]


@pytest.mark.parametrize(
    ("body", "where", "expected", "got"),
    [
        (b"", "event", "an event as JSON", "b''"),
        (b"\xff\xfe\x00", "event", "an event as JSON", r"\xff"),
        ("[1]", "event", "a JSON object", "list"),
        ("[" * 200_000, "event", "an event as JSON", "[[["),
        ("9" * 6_000, "event", "an event as JSON", "999"),
        (b" " * (MAX_BYTES + 1), "event", "at most 1,000,000 bytes", "1,000,001"),
        (7, "event", "an event as JSON", "int"),
        ({}, "event, Records", "a list", "nothing"),
        ({"Records": [1]}, "event, Records[0]", "an object", "int"),
        ({"Records": [{"s3": {}}]}, "event, Records[0].s3.bucket", "an object", "nothing"),
        ({"Records": [record("")]}, "event, Records[0].s3.object.key", "a name that", "''"),
        ({"Records": [record("a%00b")]}, "event, Records[0].s3.object.key", "a name that", r"a\x00b"),
        (from_ceph("a\ud800"), "event, Records[0].s3.object.key", "a name that", r"a\ud800"),
        ({"detail": {"bucket": {"name": 3}}}, "event, detail.bucket.name", "a text", "int"),
        ({"Type": "Notification", "Message": json.dumps(by_sns("a"))}, "event, Records", "a list", "nothing"),
        ({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://…"}, "event, Records", "a list", "nothing"),
    ],
)
def test_anything_else_is_refused_with_where_and_what(body: Any, where: str, expected: str, got: str) -> None:
    with pytest.raises(EventUnreadable) as caught:
        named_objects(body)
    assert caught.value.where == where
    assert caught.value.expected.startswith(expected)
    assert got in caught.value.got
    assert len(str(caught.value)) < 600


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Near misses: every field of a real event may be missing or hold anything.
near_events = st.fixed_dictionaries(
    {},
    optional={
        "Type": st.just("Notification") | json_values,
        "Message": st.text() | json_values.map(json.dumps),
        "Event": st.just("s3:TestEvent") | json_values,
        "detail": json_values | st.fixed_dictionaries({"bucket": json_values, "object": json_values}),
        "Records": json_values
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "eventSource": json_values,
                    "s3": json_values
                    | st.fixed_dictionaries(
                        {
                            "bucket": json_values | st.fixed_dictionaries({"name": json_values}),
                            "object": json_values | st.fixed_dictionaries({"key": json_values}),
                            "configurationId": json_values,
                        }
                    ),
                },
            ),
            max_size=3,
        ),
    },
)


@given(body=st.binary() | st.text() | json_values | near_events | near_events.map(json.dumps))
def test_no_body_raises_another_error(body: Any) -> None:
    try:
        named = named_objects(body)
    except EventUnreadable as error:
        assert error.remedy
    else:
        for bucket, key in named:
            assert bucket
            assert key
            (bucket + key).encode()  # what a database can hold
