"""The watcher: a listing against the ledger. Events only wake it; whatever wakes it, the listing decides."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from flows.context import Context
from lake.layout import inbox_prefix
from lake.ledger.wakeups import Wakeup
from lake.records import ObjectRef

log = logging.getLogger("tidemill.watch")

# The share of time that listings may take. A large inbox is asked for what comes after its last key between whole
# listings: with names that grow, as dates do, that shows new objects at once; all others wait for the next whole one.
LISTING_SHARE = 0.2
CHEAP_S = 0.5  # so short a listing is made at every look, however busy the machine is
FULL_LISTING_AT_LEAST_EVERY_S = 300.0
NOT_SETTLED_S = 1e9
# Of more named keys, the others wait for the next look, or for a whole listing that answers them all.
MAX_KEYS_ASKED = 50


def reconcile_model(context: Context, model: str, settle_s: float) -> int:
    """Compare a model's whole inbox with the ledger, and close a drop if one is due. Returns the number of new objects.

    Raises StorageError when the listing fails; nothing is taken for gone then.
    """
    n_new = context.ledger.arrivals.reconcile(model, _pages(context, model), _now(), clock=_now)
    close_drop(context, model, settle_s)
    return n_new


def close_drop(context: Context, model: str, settle_s: float) -> bool:
    """Make one drop of what waits, if it is time to."""
    settings = context.settings
    drop = context.ledger.arrivals.close_drop(
        model,
        settle_s,
        datetime.now(UTC),
        max_wait_s=settings.drop_max_wait_s,
        max_objects=settings.drop_max_objects,
        max_bytes=settings.drop_max_bytes,
    )
    if drop is not None:
        log.info("drop %s of %s: %d objects", drop.drop_id, model, len(drop.objects))
    return drop is not None


class Watcher:
    """Looks at every inbox once per poll interval, and at once when an event names a key.

    It asks the store and the ledger alone: while the Prefect server is away it goes on recording.
    """

    def __init__(self, context: Context, complain: Callable[[str, Exception | None], None]) -> None:
        self.context = context
        self.wake = threading.Event()
        self._complain = complain
        self._inboxes: dict[str, _Inbox] = {}

    def tick(self) -> bool:
        """One look at everything. Returns whether a drop has been closed. A model whose listing fails holds up no other.

        Raises what the store or the ledger raise when even the recipes cannot be listed.
        """
        closed = False
        pending = self.context.ledger.wakeups.pending()
        unanswered: set[Wakeup] = set()
        for model in self.context.models():
            named = [wakeup for wakeup in pending if self._is_for(wakeup, model)]
            inbox = self._inboxes.setdefault(model, _Inbox(self.context, model))
            try:
                asked = inbox.look(sorted({wakeup.key for wakeup in named}))
                unanswered.update(wakeup for wakeup in named if wakeup.key not in asked)
                settle_s = NOT_SETTLED_S if inbox.in_burst else self.context.settings.settle_s
                closed |= close_drop(self.context, model, settle_s)
                self._complain(f"inbox {model}", None)
            except Exception as error:
                inbox.must_be_whole()
                self._complain(f"inbox {model}", error)
        # Of a listing that has failed, the next one is whole; and so is the first one of a model without a recipe yet.
        self.context.ledger.wakeups.forget(wakeup.number for wakeup in pending if wakeup not in unanswered)
        return closed

    def is_woken(self) -> bool:
        """Whether the ledger holds an event that no look has answered. False while the ledger is away."""
        try:
            return bool(self.context.ledger.wakeups.pending(limit=1))
        except Exception as error:
            self._complain("events", error)
            return False

    def settling(self) -> bool:
        """Whether new objects have come at the last look: it pays to look again as soon as they have settled."""
        return any(inbox.has_news for inbox in self._inboxes.values())

    def _is_for(self, wakeup: Wakeup, model: str) -> bool:
        return wakeup.bucket == self.context.bucket.name and wakeup.key.startswith(inbox_prefix(model))


class _Pace:
    """Lets listings of one kind take LISTING_SHARE of the time at most."""

    def __init__(self) -> None:
        self._ended_at, self._took_s = -FULL_LISTING_AT_LEAST_EVERY_S, 0.0

    def is_cheap(self) -> bool:
        return self._took_s < CHEAP_S

    def is_due(self, soon: bool = False) -> bool:
        """Whether the next listing may begin; `soon`, after a pause as long as the last one took."""
        if self.is_cheap():
            return True
        wait_s = self._took_s if soon else min(self._took_s / LISTING_SHARE, FULL_LISTING_AT_LEAST_EVERY_S)
        return time.monotonic() - self._ended_at >= wait_s

    @contextmanager
    def measured(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._ended_at = time.monotonic()
            self._took_s = self._ended_at - started


class _Inbox:
    """One model's inbox: which part of it to list next."""

    def __init__(self, context: Context, model: str) -> None:
        self._context, self._model = context, model
        self._whole, self._tail = _Pace(), _Pace()
        self._last_key = ""
        self._only_whole = False
        self.has_news = False
        # A whole listing that takes long has shown new objects. More are coming perhaps, and the next one will tell.
        self.in_burst = False

    def must_be_whole(self) -> None:
        """Nothing but a whole listing will do: the last one has failed, and its events are forgotten."""
        self._only_whole = True

    def look(self, named: Sequence[str]) -> Collection[str]:
        """List the whole inbox when it is due, else what comes after its last key, and some named keys.

        Returns the named keys that were asked for.
        """
        now, arrivals = _now(), self._context.ledger.arrivals
        n_new = 0
        if self._whole.is_due(soon=self.in_burst):
            with self._whole.measured():
                pages = self._followed(_pages(self._context, self._model))
                n_new += arrivals.reconcile(self._model, pages, now, clock=_now)
            self._only_whole = False
            self.in_burst = n_new > 0 and not self._whole.is_cheap()
        elif not self._only_whole:
            if self._tail.is_due():
                with self._tail.measured():
                    later = self._followed(_pages(self._context, self._model, self._last_key))
                    n_new += arrivals.reconcile(self._model, later, now, whole=False, clock=_now)
            named = named[:MAX_KEYS_ASKED]
            if named:
                found = [ref for ref in map(self._context.bucket.find, named) if ref is not None]
                n_new += arrivals.reconcile(self._model, [found], now, whole=False, keys=named)
        self.has_news = n_new > 0
        return frozenset(named)

    def _followed(self, pages: Iterator[Sequence[ObjectRef]]) -> Iterator[Sequence[ObjectRef]]:
        for page in pages:
            self._last_key = max([self._last_key, *(ref.key for ref in page)])
            yield page


def _now() -> datetime:
    return datetime.now(UTC)


def _pages(context: Context, model: str, start_after: str = "") -> Iterator[Sequence[ObjectRef]]:
    """The objects of an inbox. An empty one whose key ends with a slash is a file browser's folder, not data."""
    for page in context.bucket.pages(inbox_prefix(model), start_after):
        yield [ref for ref in page if ref.size_bytes or not ref.key.endswith("/")]
