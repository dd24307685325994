"""The watcher's one path: a listing against the ledger. Whatever wakes it, the listing decides."""

from __future__ import annotations

from datetime import UTC, datetime

from flows.context import Context
from lake.layout import inbox_prefix


def reconcile_model(context: Context, model: str, settle_s: float) -> int:
    """Enter new objects of a model's inbox; close a drop once none has come for `settle_s`. Returns the new ones."""
    now = datetime.now(UTC)
    # A key that ends with a slash is a folder marker of a file browser, not data.
    listing = (ref for ref in context.bucket.list(inbox_prefix(model)) if not ref.key.endswith("/"))
    n_new = context.ledger.arrivals.reconcile(model, listing, now)
    context.ledger.arrivals.close_drop(model, settle_s, datetime.now(UTC))
    return n_new
