"""What an event about an object names, whichever store has sent it. Pure. An event is a hint: what is said is never trusted.

How the four write a key, by their sources: AWS as a form does (`red flower` → `red+flower`), MinIO in the same way with
its slashes too (`%2F`; the `Key` beside its `Records` is bucket and decoded key in one, and is left alone). Ceph and
versitygw do not encode it at all. EventBridge does not either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_plus

from lake.errors import TidemillError
from lake.layout import INBOX

MAX_BYTES = 1_000_000  # AWS sends one object an event; a queue's message has at most 1 MiB, its envelope included
_CEPH = "ceph:s3"
# versitygw calls itself aws:s3 and is known by this. (s3event/event.go, v1.8.0)
_VERSITYGW = ("webhook-global", "kafka-global", "nats-global", "rabbitmq-global")
# Half a surrogate pair is not UTF-8, as a key has to be; neither a listing's XML nor PostgreSQL can hold a zero byte.
_IMPOSSIBLE = re.compile("[\0\ud800-\udfff]")

_JSON_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


class EventUnreadable(TidemillError):
    """A body is not an event about objects in any of the known shapes."""


def named_objects(body: bytes | str | dict[str, Any]) -> list[tuple[str, str]]:
    """`(bucket, key)` of every object that is named, keys decoded: created, removed or changed, the listing knows which.

    Reads `Records` of AWS, MinIO, Ceph and versitygw, the same inside an SNS message, and EventBridge's `detail`.
    A test event names nothing. Raises EventUnreadable for anything else, and no other error.
    """
    event = _parsed(body)
    if event.get("Type") == "Notification":  # an SNS envelope; there is one at most
        event = _parsed(event.get("Message"))
    if event.get("Event") == "s3:TestEvent":
        return []
    if "detail" in event:
        detail = _field(event, "detail", dict, "")
        return [_named(detail, "detail", encoded=False)]
    records = _field(event, "Records", list, "")
    return [_of_record(record, f"Records[{i}]") for i, record in enumerate(records)]


def in_inbox(named: Iterable[tuple[str, str]], bucket: str) -> list[tuple[str, str]]:
    """Those that may wake the watcher, each once: objects of `bucket` that users have dropped.

    What Tidemill writes itself raises events too, and a queue may serve other buckets.
    """
    return [(at, key) for at, key in dict.fromkeys(named) if at == bucket and key.startswith(INBOX)]


def _parsed(body: object) -> dict[str, Any]:
    """The JSON object in `body`, within bounds."""
    if isinstance(body, dict):
        return body
    if not isinstance(body, bytes | str):
        raise _unreadable("", "an event as JSON", body)
    if len(body) > MAX_BYTES:
        raise EventUnreadable(
            "event",
            expected=f"at most {MAX_BYTES:,} bytes",
            got=f"{len(body):,}",
            remedy="check what sends it: one event has about 1,000",
        )
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number of 5,000 digits, 100,000 brackets
        raise _unreadable("", "an event as JSON", body) from error
    if not isinstance(parsed, dict):
        raise _unreadable("", "a JSON object", parsed)
    return parsed


def _of_record(record: object, at: str) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise _unreadable(at, "an object", record)
    s3 = _field(record, "s3", dict, at)
    raw = record.get("eventSource") == _CEPH or s3.get("configurationId") in _VERSITYGW
    return _named(s3, f"{at}.s3", encoded=not raw)


def _named(holder: dict[str, Any], at: str, *, encoded: bool) -> tuple[str, str]:
    bucket = _name(_field(holder, "bucket", dict, at), "name", f"{at}.bucket")
    if len(bucket) > 255:  # what AWS once allowed; 63 today
        raise _unreadable(f"{at}.bucket.name", "a bucket's name, of at most 255 characters", bucket)
    key = _name(_field(holder, "object", dict, at), "key", f"{at}.object")
    # Bytes that are not UTF-8 become U+FFFD: such a key is in no listing, so that nothing is woken for it.
    return bucket, _possible(unquote_plus(key), f"{at}.object.key") if encoded else key


def _name(holder: dict[str, Any], field: str, at: str) -> str:
    value: str = _field(holder, field, str, at)
    return _possible(value, f"{at}.{field}")


def _possible(name: str, at: str) -> str:
    if not name or _IMPOSSIBLE.search(name):
        raise _unreadable(at, "a name that an object or a bucket can have", name)
    return name


def _field(holder: dict[str, Any], field: str, kind: type, at: str) -> Any:
    value = holder.get(field)
    if not isinstance(value, kind):
        raise _unreadable(f"{at}.{field}".lstrip("."), _JSON_NAMES[kind], value)
    return value


def _unreadable(at: str, expected: str, got: object) -> EventUnreadable:
    return EventUnreadable(
        f"event, {at}" if at else "event",
        expected=expected,
        got=_shown(got),
        remedy="send S3 events: Records of AWS, MinIO, Ceph or versitygw, plain or by SNS, or EventBridge's detail",
    )


def _shown(value: object) -> str:
    """Enough to know it by, however large it is; never its depths."""
    if value is None:
        return "nothing"
    if isinstance(value, bytes | str):
        return ascii(value[:80])
    return type(value).__name__
