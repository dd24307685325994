"""The watcher on a real store and ledger: the listing decides, whatever wakes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flows import watch
from flows.context import Context
from flows.watch import Watcher, reconcile_model
from lake.bucket import Bucket
from lake.errors import StorageError
from lake.ledger import Ledger
from lake.settings import Settings

Complaints = dict[str, Exception | None]


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    opened = Context(settings)
    for model in ("one", "two"):
        bucket.put(f"recipes/{model}.yaml", f"name: {model}\n".encode())
    return opened


@pytest.fixture
def complaints() -> Complaints:
    return {}


@pytest.fixture
def watcher(context: Context, complaints: Complaints) -> Watcher:
    return Watcher(context, complaints.__setitem__)


@pytest.fixture
def only_tails(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on whole listings are too dear."""

    def begin() -> None:
        monkeypatch.setattr(watch._Pace, "is_due", lambda pace, soon=False: False)
        monkeypatch.setattr(watch, "MAX_KEYS_ASKED", 5)

    return begin


def states(context: Context) -> dict[str, tuple[str, bool]]:
    return {found.key: (found.state, found.gone_at is not None) for found in context.ledger.arrivals.objects()}


def put(context: Context, *keys: str) -> None:
    for key in keys:
        context.bucket.put(key, key.encode())


def finish(context: Context) -> None:
    """All drops are prepared."""
    for found in context.ledger.drops.states():
        context.ledger.drops.move(found.drop_id, found.state, "waiting", found.updated_at)


def test_what_lies_in_the_inboxes_becomes_a_drop_of_each_model(context: Context, watcher: Watcher) -> None:
    put(context, "inbox/one/a", "inbox/one/b/c", "inbox/two/a", "inbox/unknown/a", "elsewhere/a")
    assert watcher.tick()
    assert [len(context.ledger.drops.get(d.drop_id).objects) for d in context.ledger.drops.states()] == [2, 1]  # type: ignore[union-attr]
    assert not watcher.tick()
    assert sorted(states(context)) == ["inbox/one/a", "inbox/one/b/c", "inbox/two/a"]


def test_an_empty_object_is_data_and_a_folder_is_not(context: Context, watcher: Watcher) -> None:
    context.bucket.put("inbox/one/empty", b"")
    put(context, "inbox/one/a")
    reconcile_model(context, "one", 0)
    assert sorted(states(context)) == ["inbox/one/a", "inbox/one/empty"]


def test_news_are_followed_up_soon(context: Context, watcher: Watcher) -> None:
    watcher.tick()
    assert not watcher.settling()
    put(context, "inbox/one/a")
    watcher.tick()
    assert watcher.settling()
    watcher.tick()
    assert not watcher.settling()


def test_a_large_inbox_is_asked_for_what_comes_after_its_last_key(
    context: Context, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(context, "inbox/one/2026-01", "inbox/one/2026-03")
    watcher.tick()
    finish(context)
    put(context, "inbox/one/2026-02", "inbox/one/2026-04")
    monkeypatch.setattr(watch._Pace, "is_due", lambda pace, soon=False: pace is watcher._inboxes["one"]._tail)
    watcher.tick()
    assert "inbox/one/2026-04" in states(context)
    assert "inbox/one/2026-02" not in states(context)  # it waits for the next whole listing
    reconcile_model(context, "one", 0)
    assert "inbox/one/2026-02" in states(context)


def test_a_burst_in_a_large_inbox_is_one_drop(
    context: Context, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings take longer than it takes to settle: only a whole one without news says that the burst is over."""
    monkeypatch.setattr(watch, "CHEAP_S", 0.0)
    for n in range(5):
        put(context, f"inbox/one/{9 - n}")
        inbox = watcher._inboxes.get("one")
        if inbox is not None:
            inbox._whole._ended_at = float("-inf")
        assert not watcher.tick()
    watcher._inboxes["one"]._whole._ended_at = float("-inf")
    assert watcher.tick()
    (drop,) = context.ledger.drops.states()
    assert context.ledger.drops.sizes([drop.drop_id]) == {drop.drop_id: 5}


def test_a_key_that_an_event_names_is_asked_for_at_once(
    context: Context, watcher: Watcher, only_tails: Callable[[], None]
) -> None:
    put(context, "inbox/one/m", "inbox/one/z")
    watcher.tick()
    finish(context)
    only_tails()
    put(context, "inbox/one/a b+c ü", "inbox/one/not-named")
    context.bucket.client.delete_object(Bucket=context.bucket.name, Key="inbox/one/m")
    named = [(context.bucket.name, f"inbox/one/{name}") for name in ("a b+c ü", "m", "never-was")]
    assert not watcher.is_woken()
    context.ledger.wakeups.record([*named, *named], "sqs")  # twice, as queues do
    assert watcher.is_woken()
    assert watcher.tick()
    assert states(context) == {
        "inbox/one/a b+c ü": ("assigned", False),
        "inbox/one/m": ("assigned", True),
        "inbox/one/z": ("assigned", False),
    }
    assert not watcher.is_woken()
    assert not watcher.tick()


def test_of_many_named_keys_some_are_asked_for_and_the_others_wait(
    context: Context, watcher: Watcher, only_tails: Callable[[], None]
) -> None:
    watcher.tick()
    only_tails()
    keys = [f"inbox/one/{n}" for n in range(8)]
    put(context, *keys, "inbox/one/not-named")
    context.ledger.wakeups.record([(context.bucket.name, key) for key in keys], "webhook")
    watcher.tick()
    assert (len(states(context)), len(context.ledger.wakeups.pending())) == (5, 3)
    watcher.tick()
    assert (len(states(context)), len(context.ledger.wakeups.pending())) == (8, 0)


def test_events_of_others_are_forgotten(context: Context, watcher: Watcher) -> None:
    foreign = [("another-bucket", "inbox/one/a"), (context.bucket.name, "inbox/unknown/a"), (context.bucket.name, "x")]
    context.ledger.wakeups.record(foreign, "webhook")
    watcher.tick()
    assert context.ledger.wakeups.pending() == []
    assert states(context) == {}


def test_a_listing_that_fails_holds_up_no_other_and_the_next_one_is_whole(
    context: Context, watcher: Watcher, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(context, "inbox/one/a", "inbox/two/a")
    named = [(context.bucket.name, "inbox/one/a"), (context.bucket.name, "inbox/two/a")]
    context.ledger.wakeups.record(named, "webhook")
    pages = context.bucket.pages

    def broken(prefix: str, start_after: str = "") -> Iterator[object]:
        if prefix == "inbox/one/":
            raise StorageError(prefix, expected="a listing", got="AccessDenied", remedy="none")
        return pages(prefix, start_after)  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        patch.setattr(context.bucket, "pages", broken)
        watcher.tick()
    assert states(context) == {"inbox/two/a": ("assigned", False)}
    assert isinstance(complaints["inbox one"], StorageError)
    assert complaints["inbox two"] is None
    watcher.tick()
    assert complaints["inbox one"] is None
    assert states(context)["inbox/one/a"] == ("assigned", False)
    assert context.ledger.wakeups.pending() == []


def test_a_bucket_that_vanishes_costs_nothing_and_is_found_again(context: Context, watcher: Watcher) -> None:
    put(context, "inbox/one/a")
    watcher.tick()
    client, name = context.bucket.client, context.bucket.name
    for key in ("inbox/one/a", "recipes/one.yaml", "recipes/two.yaml"):
        client.delete_object(Bucket=name, Key=key)
    client.delete_bucket(Bucket=name)
    with pytest.raises(StorageError, match="NoSuchBucket"):
        watcher.tick()
    with pytest.raises(StorageError, match="NoSuchBucket"):
        reconcile_model(context, "one", 0)
    assert states(context) == {"inbox/one/a": ("assigned", False)}  # nobody has seen it deleted
    context.bucket.ensure(create=True)
    put(context, "recipes/one.yaml", "inbox/one/a", "inbox/one/b")
    finish(context)
    assert watcher.tick()
    assert [d.state for d in context.ledger.drops.states()] == ["waiting", "closed"]
