from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from beam_jobs.perplexity.buckets import Thresholds, bucket_of
from beam_jobs.perplexity.reference import MIN_DOCUMENTS, Reference, interleaved, learn
from beam_jobs.perplexity.scorer import CrossFitted, make_scorer
from lake.errors import TidemillError
from lake.recipe import Perplexity
from tests.tiny_export import write_tiny_export

RULES = Perplexity()


@pytest.fixture(scope="module")
def reference(paragraphs: list[str]) -> Reference:
    learnt = learn(paragraphs[:450], RULES)
    assert learnt is not None
    return learnt


def scores(reference: Reference, texts: list[str], rules: Perplexity = RULES) -> np.ndarray:
    return make_scorer(rules, reference.models).perplexities(texts)


def test_new_documents_of_the_historys_kind_fall_into_all_buckets_and_others_into_the_tail(
    reference: Reference, paragraphs: list[str], legal_paragraphs: list[str]
) -> None:
    assert reference.thresholds is not None
    own = Counter(bucket_of(scores(reference, paragraphs[450:]), reference.thresholds))
    other = Counter(bucket_of(scores(reference, legal_paragraphs), reference.thresholds))

    assert min(own[bucket] for bucket in ("head", "middle", "tail")) > 0.15 * own.total()
    assert other["tail"] > 0.6 * other.total()
    assert other["head"] == 0


def test_thresholds_come_from_documents_that_were_not_trained_on(reference: Reference, paragraphs: list[str]) -> None:
    """Of those trained on, hardly any would be above them."""
    assert reference.thresholds is not None
    trained_on = [text for place, text in enumerate(paragraphs[:450]) if place % 10]

    assert Counter(bucket_of(scores(reference, trained_on), reference.thresholds))["head"] > 0.9 * len(trained_on)


def test_saved_and_loaded_it_is_the_same(reference: Reference, paragraphs: list[str]) -> None:
    again = Reference.from_bytes(reference.to_bytes(), "here")

    assert again.thresholds == reference.thresholds
    np.testing.assert_array_equal(scores(again, paragraphs[450:]), scores(reference, paragraphs[450:]))


def test_a_drop_that_judges_itself_has_two_models_and_no_document_its_own(paragraphs: list[str]) -> None:
    learnt = learn(paragraphs, RULES, judges_itself=True)
    assert learnt is not None and learnt.thresholds is not None
    learnt = Reference.from_bytes(learnt.to_bytes(), "here")
    assert isinstance(make_scorer(RULES, learnt.models), CrossFitted)

    buckets = Counter(bucket_of(scores(learnt, paragraphs), learnt.thresholds))

    # Had they been trained on what they judge, nearly all would be in the head.
    assert min(buckets[bucket] for bucket in ("head", "middle", "tail")) > 0.2 * len(paragraphs)


def test_no_more_is_read_than_the_training_words(paragraphs: list[str]) -> None:
    words = [len(text.split()) for text in paragraphs]
    assert sum(words) > 20_000
    n_read = 0

    def read():
        nonlocal n_read
        for text in paragraphs:
            n_read += 1
            yield text

    learn(read(), Perplexity(training_words=10_000))

    assert sum(words[: n_read - 1]) >= 10_000 > sum(words[: n_read - 2])  # one is taken to see that it is too many


def test_too_little_to_learn_from_leaves_a_drop_unscored(paragraphs: list[str]) -> None:
    assert learn([], RULES) is None
    assert learn(paragraphs[: MIN_DOCUMENTS - 1], RULES) is None
    assert learn([paragraphs[0]] * MIN_DOCUMENTS, RULES, judges_itself=True) is None  # one fold has nothing
    assert learn(paragraphs[:MIN_DOCUMENTS], RULES) is not None


def test_thresholds_of_the_recipe_go_before(paragraphs: list[str]) -> None:
    learnt = learn(paragraphs[:150], Perplexity(thresholds=(30.0, 90.5)))

    assert learnt is not None
    assert learnt.thresholds == Thresholds(30, 90.5)


def test_what_was_rejected_before_raises_the_thresholds(paragraphs: list[str]) -> None:
    plain, corrected = (learn(paragraphs[:300], RULES, rejected_share=share) for share in (0, 0.25))
    assert plain is not None and plain.thresholds is not None
    assert corrected is not None and corrected.thresholds is not None

    assert corrected.thresholds.middle > plain.thresholds.middle
    assert corrected.thresholds.tail > plain.thresholds.tail


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Perplexity:
    folder = write_tiny_export(tmp_path_factory.mktemp("export"))
    return Perplexity(model=f"file:{folder}", max_tokens=64, reference_documents=30)


def test_an_export_takes_its_thresholds_from_documents_of_the_history(
    paragraphs: list[str], exported: Perplexity
) -> None:
    learnt = learn(paragraphs, exported)

    assert learnt is not None
    learnt = Reference.from_bytes(learnt.to_bytes(), "here")
    assert learnt.models == ()
    assert learnt.thresholds is not None
    buckets = Counter(bucket_of(scores(learnt, paragraphs[:30], exported), learnt.thresholds))
    assert buckets == {"head": 10, "middle": 10, "tail": 10}


def test_an_export_without_a_history_scores_without_buckets(exported: Perplexity) -> None:
    learnt = learn([], exported)

    assert learnt == Reference((), None)
    assert Reference.from_bytes(learnt.to_bytes(), "here") == learnt


def test_a_folder_that_is_no_export_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match=r"perplexity\.model"):
        learn([], Perplexity(model=f"file:{tmp_path}", thresholds=(10, 20)))


def test_interleaved_sources_are_read_in_turn_and_to_their_ends() -> None:
    found = list(interleaved([["a1", "a2", "a3"], iter(["b1"]), [], ["c1", "c2"]]))

    assert found == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_bytes_of_another_specification_or_none_are_refused(reference: Reference) -> None:
    tensors = load(reference.to_bytes())
    other = save(tensors | {"specification": np.frombuffer(b"word-n-grams;v0", np.uint8)})
    lacking = save({name: tensor for name, tensor in tensors.items() if name != "0/words.1.log_p"})

    for data in (b"", b"not safetensors", other, lacking, save({"a": np.zeros(1)})):
        with pytest.raises(TidemillError, match=r"work/perplexity\.safetensors: expected n-gram models"):
            Reference.from_bytes(data, "work/perplexity.safetensors")
