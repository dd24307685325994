"""Which domain a document belongs to: by its source, else by keywords, else as the classifier says, else `other`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

import numpy as np

from beam_jobs.mix.classifier import Classifier
from beam_jobs.mix.keywords import Keywords
from beam_jobs.mix.terms import Terms, terms_of
from beam_jobs.mix.words import words_of
from lake.recipe.mix import OTHER, Mix

_MAX_REMEMBERED = 10_000


class DomainRules:
    """The recipe's domains, ready to be asked. The surest rule decides:

    1. `sources`: the first domain, in the recipe's order, one of whose patterns matches;
    2. `keywords`: of the domains with enough matches the one of the highest score, of equals the first;
    3. the classifier, where it is at least `min_confidence` sure;
    4. `other`.
    """

    def __init__(self, mix: Mix, classifier: Classifier | None = None) -> None:
        """`classifier` is `train(seeds_of(mix), mix.labels)` where the mix has seeds."""
        self.labels = mix.labels
        self._sources = [(name, _pattern(domain.sources)) for name, domain in mix.domains.items() if domain.sources]
        self._keywords = Keywords(mix.domains)
        self._classifier = classifier
        self._min_confidence = mix.min_confidence
        self._by_source: dict[str, str | None] = {}

    def domain_of(self, text: str, source_uri: str) -> str:
        """The domain of one document; of many, `domains_of` is faster where there is a classifier."""
        return self.domains_of([text], [source_uri])[0]

    def domains_of(self, texts: Sequence[str], source_uris: Sequence[str], terms: Terms | None = None) -> list[str]:
        """The domain of each document. `terms` are `terms_of(texts)`, where the caller has them already."""
        found = [
            self._of_source(uri) or (self._keywords.domain_of(words_of(text)) if self._keywords else None)
            for text, uri in zip(texts, source_uris, strict=True)
        ]
        if self._classifier is None or None not in found:
            return [domain or OTHER for domain in found]
        guesses = self._guesses(terms_of(texts) if terms is None else terms, self._classifier)
        return [domain or guess for domain, guess in zip(found, guesses, strict=True)]

    def _guesses(self, terms: Terms, classifier: Classifier) -> list[str]:
        probabilities = classifier.probabilities(terms)
        best = probabilities.argmax(axis=1)
        is_sure = (probabilities.max(axis=1) >= self._min_confidence) & (np.diff(terms.starts) > 0)
        return [classifier.labels[place] if sure else OTHER for place, sure in zip(best, is_sure, strict=True)]

    def _of_source(self, uri: str) -> str | None:
        if uri not in self._by_source:
            if len(self._by_source) >= _MAX_REMEMBERED:
                self._by_source.clear()
            matching = (name for name, pattern in self._sources if pattern.match(uri))
            self._by_source[uri] = next(matching, None)
        return self._by_source[uri]


def _pattern(globs: Sequence[str]) -> re.Pattern[str]:
    """Globs as one expression: those with a scheme are of the whole uri, the others of its end from any folder on."""
    return re.compile("|".join(("" if "://" in glob else "(?s:.*/)?") + fnmatch.translate(glob) for glob in globs))
