"""What a recipe can ask for beyond cleaning: quotas with a reserve, repeated paragraphs and lines, perplexity."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from beam_jobs.compact import compact
from beam_jobs.past import Past
from beam_jobs.prepare import prepare
from beam_jobs.runners import LOCAL
from lake.folder import Folder
from lake.ledger.arrivals import drop_id_of
from lake.recipe import Recipe, parse_recipe
from lake.records import Dataset, Drop
from tests.documents import document

MIX = """
name: m
prepare:
  mix:
    domains:
      machines: {keywords: [server, parser, buffer, socket, ledger, bucket, index, table, query], min_matches: 2}
      gardens: {sources: ["gardens/*"]}
    quotas: {machines: 0.5, gardens: 0.3}
    tolerance: 0.05
"""


def garden(number: int) -> str:
    draw = random.Random(number)
    plants = ["rose", "fern", "oak", "moss", "lily", "ivy", "sage", "thyme", "mint", "iris", "elm", "ash"]
    ways = ["grows well", "wants shade", "likes rain", "fears frost", "climbs high", "smells sweet", "dies early"]
    whens = ["in a wet spring", "under the old wall", "beside the gate", "when the days are long", "near the pond"]
    return " ".join(
        f"The {draw.choice(plants)} {draw.choice(ways)} {draw.choice(whens)} and the {draw.choice(plants)} too."
        for _ in range(12)
    )


def other(number: int) -> str:
    draw = random.Random(number)
    words = ["kitchen", "window", "letter", "uncle", "morning", "violin", "harbour", "winter", "copper", "story"]
    return " ".join(
        f"She told of the {draw.choice(words)} and of a {draw.choice(words)} that nobody had seen since that {n}."
        for n in draw.sample(words, 10)
    )


class Shop:
    """A folder that things are prepared in."""

    def __init__(self, root: Path) -> None:
        self.inbox, self.out = Folder(root / "in"), Folder(root / "out")

    def drop(self, **bodies: Sequence[str]) -> Drop:
        names = {name.replace("__", "/") + ".jsonl" for name in bodies}
        for name, texts in bodies.items():
            records = [{"id": f"{name}-{n}", "text": text} for n, text in enumerate(texts)]
            self.inbox.put(name.replace("__", "/") + ".jsonl", "\n".join(map(json.dumps, records)).encode())
        refs = tuple(ref for ref in self.inbox.list("") if ref.key in names)
        return Drop(drop_id=drop_id_of(refs), model="m", objects=refs, closed_at=datetime.now(UTC))

    def prepare(self, drop: Drop, recipe: Recipe, name: str, history: Sequence[Dataset] = (), **more: Any) -> Dataset:
        past = [self.past(each) for each in history]
        reused = {each for dataset in history for each in dataset.reused_ids}
        return prepare(
            drop,
            recipe,
            self.out.address,
            name,
            more.pop("indexes", past),
            more.pop("options", LOCAL),
            prefix=f"{name}/",
            sources={self.inbox.name: self.inbox.address},
            corpus=past,
            reserves=[self.past(each) for each in history if each.n_reserved and each.dataset_id not in reused],
            **more,
        )

    def past(self, dataset: Dataset) -> Past:
        return Past(dataset.dataset_id, self.out.address, dataset.prefix)

    def rows(self, dataset: Dataset, folder: str) -> list[dict[str, Any]]:
        keys = list(self.out.keys(f"{dataset.prefix}{folder}/"))
        return [row for key in keys for row in self.out.get_table(key).to_pylist()]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_mix_is_kept_and_the_rest_waits_for_the_next_drop(shop: Shop) -> None:
    recipe = parse_recipe(MIX, "m.yaml")
    first = shop.prepare(
        shop.drop(
            machines=[document(n) for n in range(60)],
            gardens__a=[garden(n) for n in range(10)],
            stories=[other(n) for n in range(40)],
        ),
        recipe,
        "one",
    )
    tokens = sum(first.domains.values())
    assert abs(first.domains["machines"] / tokens - 0.5) <= 0.05
    assert abs(first.domains["gardens"] / tokens - 0.3) <= 0.05
    assert first.n_reserved == first.rejected["over_quota"] > 20
    assert first.n_read == 110 == first.n_kept + sum(first.rejected.values())
    assert {each["domain"] for each in first.mix} == {"machines", "gardens", "rest"}
    assert all(each["met"] for each in first.mix)
    kept = shop.rows(first, "shards")
    assert {row["domain"] for row in kept} == {"machines", "gardens", "other"}
    assert all(row["value"] is not None for row in kept)
    waiting = {row["given_id"] for row in shop.rows(first, "reserve")}
    assert waiting == {row["id"] for row in shop.rows(first, "rejects") if row["reason"] == "over_quota"}

    # More gardens: what waited gets its place, once, beside them; a copy of what waits is a duplicate of it.
    again = next(n for n in range(60) if f"machines-{n}" in waiting)
    second = shop.prepare(
        shop.drop(gardens__b=[garden(n) for n in range(100, 120)], copies=[document(again)]), recipe, "two", [first]
    )
    assert second.reused_ids == ("one",)
    assert second.n_read == 21 + first.n_reserved
    ids = {row["id"] for row in shop.rows(second, "shards")}
    assert len(ids & waiting) > 10
    assert not ids & {row["id"] for row in kept}
    (copy,) = [row for row in shop.rows(second, "rejects") if row["id"] == "copies-0"]
    assert (copy["reason"], copy["duplicate_of"]) == ("exact_duplicate", f"machines-{again}")

    third = shop.prepare(shop.drop(more=[garden(500)]), recipe, "three", [first, second])
    assert third.reused_ids == (("two",) if second.n_reserved else ())


def test_the_outcome_does_not_depend_on_the_processes(shop: Shop) -> None:
    recipe = parse_recipe(
        MIX + "  quality: {paragraphs: {min_characters: 20}, boilerplate: {min_documents: 5}}\n"
        "  perplexity: {drop: [tail]}\n",
        "m.yaml",
    )
    footer = "\nAll rights reserved by the gardeners of the town."
    drop = shop.drop(
        machines=[document(n) + footer for n in range(80)],
        gardens__a=[garden(n) + footer for n in range(40)],
        stories=[other(n) + "\n\n" + other(n // 2) for n in range(40)],
    )
    one = shop.prepare(drop, recipe, "one")
    two = shop.prepare(
        drop, recipe, "two", options=(*LOCAL, "--direct_num_workers=2", "--direct_running_mode=multi_processing")
    )
    assert one.model_copy(update={"dataset_id": "two", "prefix": "two/"}) == two
    digests = [
        {key.removeprefix(each.prefix): shop.out.digest(key) for key in shop.out.keys(each.prefix)}
        for each in (one, two)
    ]
    assert digests[0] == digests[1]
    assert one.rejected["high_perplexity"] > 0


def test_paragraphs_and_lines_that_repeat_are_left_out(shop: Shop) -> None:
    recipe = parse_recipe(
        "name: m\nprepare: {quality: {paragraphs: {min_characters: 20}, boilerplate: {min_documents: 5}}}", "m.yaml"
    )
    footer = "Home | About | Contact | Imprint"
    shared = garden(99)
    texts = [f"{document(n)}\n{footer}\n\n{shared if n in (3, 7) else garden(n)}" for n in range(12)]
    first = shop.prepare(shop.drop(a=texts), recipe, "one")
    found = {row["id"]: row["text"] for row in shop.rows(first, "shards")}
    assert len(found) == 12
    assert not any(footer in text for text in found.values())
    assert shared in found["a-3"]
    assert shared not in found["a-7"]
    assert found["a-7"] == document(7)

    # Also against history, whole or compacted; nothing else is left of the second one.
    compact(shop.out, [shop.past(first)], "index/")
    drop = shop.drop(b=[f"{other(1)}\n\n{shared}", shared])
    index = [Past("index", shop.out.address, "index/")]
    for name, more in (("two", {}), ("three", {"indexes": index})):
        second = shop.prepare(drop, recipe, name, [first], **more)
        assert [row["text"] for row in shop.rows(second, "shards")] == [other(1)]
        assert second.rejected == {"repeated_paragraphs": 1}


def test_what_is_dropped_anyway_takes_no_paragraph_away(shop: Shop) -> None:
    recipe = parse_recipe("name: m\nprepare: {min_letters: 0.6, quality: {paragraphs: {min_characters: 20}}}", "m.yaml")
    digits = " ".join(str(n) for n in range(2_000))
    texts = [f"{garden(1)}\n\n{digits}", f"{garden(1)}\n\n{document(1)}", f"{garden(1)}\n\n{document(1)}"]
    dataset = shop.prepare(shop.drop(a=texts), recipe, "one")
    assert [row["text"] for row in shop.rows(dataset, "shards")] == [texts[1]]
    found = {row["id"]: (row["reason"], row["duplicate_of"]) for row in shop.rows(dataset, "rejects")}
    assert found == {"a-0": ("too_few_letters", None), "a-2": ("exact_duplicate", "a-1")}


def test_what_quotas_leave_out_takes_no_paragraph_away(shop: Shop) -> None:
    recipe = parse_recipe(
        "name: m\nprepare: {quality: {paragraphs: {min_characters: 20}}, mix: {value: arrival, quotas: {},"
        " max_tokens: 500, domains: {late: {sources: [z.jsonl]}}}}",
        "m.yaml",
    )
    shared = garden(1)
    dataset = shop.prepare(
        shop.drop(a=[document(1, 20)], b=[f"{document(2, 30)}\n\n{shared}"], z=[shared]), recipe, "one"
    )
    kept = " ".join(row["text"] for row in shop.rows(dataset, "shards"))
    waiting = " ".join(row["text"] for row in shop.rows(dataset, "reserve"))
    assert shared in kept or shared in waiting
    assert dataset.rejected.get("repeated_paragraphs", 0) == 0 or shared in kept


def test_documents_are_judged_by_the_history_of_their_model(shop: Shop) -> None:
    recipe = parse_recipe("name: m\nprepare: {perplexity: {drop: [tail]}}", "m.yaml")
    first = shop.prepare(shop.drop(a=[document(n) for n in range(200)]), parse_recipe("name: m", "m.yaml"), "one")
    draw = random.Random(0)
    odd = [" ".join(draw.sample(document(n).replace(".", "").split(), 90)) for n in range(300, 310)]
    second = shop.prepare(shop.drop(b=[document(n) for n in range(400, 430)], c=odd), recipe, "two", [first])

    metrics = {row["id"]: row for row in shop.rows(second, "metrics")}
    assert {row["reason"] for row in metrics.values() if not row["perplexity"]} == set()
    assert {metrics[f"c-{n}"]["perplexity_bucket"] for n in range(10)} == {"tail"}
    assert {metrics[f"c-{n}"]["reason"] for n in range(10)} == {"high_perplexity"}
    kept = [row["perplexity"] for row in shop.rows(second, "shards")]
    assert len(kept) >= 10
    assert max(kept) < min(metrics[f"c-{n}"]["perplexity"] for n in range(10))


def test_an_index_compacted_of_several_finds_what_they_find(shop: Shop) -> None:
    recipe = parse_recipe("name: m", "m.yaml")
    history: list[Dataset] = []
    for number in range(4):
        texts = [document(n) for n in range(10 * number, 10 * number + 10)]
        history.append(shop.prepare(shop.drop(**{f"a{number}": texts}), recipe, f"old{number}", history))
    n_documents = compact(shop.out, [shop.past(each) for each in history[:3]], "index/")
    assert n_documents == 30
    drop = shop.drop(b=[document(n, 12) for n in (5, 15, 25, 35, 45)])
    apart = shop.prepare(drop, recipe, "apart", history)
    indexes = [Past("index", shop.out.address, "index/"), shop.past(history[3])]
    together = shop.prepare(drop, recipe, "together", history, indexes=indexes)

    assert apart.rejected == together.rejected == {"exact_duplicate": 4}
    assert shop.rows(apart, "rejects") == shop.rows(together, "rejects")
    assert together.history_ids == ("index", "old3")
