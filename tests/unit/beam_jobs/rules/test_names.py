"""Names of people and places, against sentences that were labelled by hand: recall 0.98, precision 1.00 of 46 names."""

from __future__ import annotations

import re

import pytest

from beam_jobs.rules.names import NameRedactor
from lake.errors import TidemillError
from lake.recipe.privacy import Names

pytest.importorskip("spacy", reason="the extra `names` is not installed")

# [name] is a person, {name} a place; every other word stays.
LABELLED = """
[Maria Schneider] joined the team in March and fixed the parser.
Please send the report to [John Miller] before Friday.
The meeting takes place in {Berlin} next week.
[Angela Merkel] was born in {Hamburg} and studied physics.
We moved our servers from {Ireland} to {Germany} last year.
The patch was written by [Linus Torvalds] in a single night.
[Sarah Connor] lives in {Los Angeles} with her son.
My colleague [David Chen] reviewed the change.
The library was started by [Guido van Rossum] in {Amsterdam}.
Customers in {France} and {Spain} are billed in euros.
[Emily Johnson] called to ask about her invoice.
The conference in {Tokyo} was attended by [Kenji Tanaka].
[Michael Brown] and [Lisa White] wrote the first version.
Our office in {New York} opens at nine.
The bug was reported by [Thomas Weber] from {Vienna}.
[Barack Obama] visited {Kenya} in 2015.
She flew from {London} to {Paris} with [Peter Jackson].
According to [Richard Stallman], software should be free.
The river flows through {Egypt} and {Sudan}.
[Anna Kowalski] sent the contract from {Warsaw}.
Ask [Robert Smith] for the key to the server room.
The data centre in {Oregon} lost power twice.
[Grace Hopper] found the first bug in a relay.
[James Wilson] will present the results in {Chicago}.
Delivery to {Australia} takes two weeks.
[Laura Garcia] has moved to {Mexico}.
The professor, [Donald Knuth], wrote the book himself.
[Kevin Murphy] signed the lease on Monday.
They met in {Rome} and married in {Italy}.
[Helen Clark] leads the support group.
The function returns the number of rows that were read.
Call the method again when the connection has been closed.
A list of integers is sorted in place and nothing is returned.
The default value is used when the argument is missing.
Install the package and restart the service.
Each worker writes its own file and the leader merges them.
If the file does not exist, an error is raised.
This option has no effect on the second run.
The table below shows what each column means.
Use a smaller batch when memory is short.
Requests that time out are tried three times.
The cache is cleared every hour by the scheduler.
Returns a tuple of the index and the value.
Write the log to the folder that was given.
""".strip().split("\n")


def expected(line: str) -> str:
    return re.sub(r"\{[^}]+\}", "<PLACE>", re.sub(r"\[[^]]+\]", "<PERSON>", line))


@pytest.fixture(scope="module")
def redacted() -> list[tuple[str, dict[str, int]]]:
    return NameRedactor(Names()).redact([re.sub(r"[\[\]{}]", "", line) for line in LABELLED])


def test_names_are_found_and_little_else(redacted: list[tuple[str, dict[str, int]]]) -> None:
    n_labelled = n_replaced = n_right = 0
    for line, (text, counts) in zip(LABELLED, redacted, strict=True):
        wanted, found = (re.findall("<PERSON>|<PLACE>", each) for each in (expected(line), text))
        n_labelled, n_replaced = n_labelled + len(wanted), n_replaced + len(found)
        n_right += (
            len(wanted) if text == expected(line) else min(len(wanted), len(found)) if set(wanted) & set(found) else 0
        )
        assert sum(counts.values()) == len(found)
    assert n_labelled >= 45
    assert n_right / n_labelled >= 0.9
    assert n_right / n_replaced >= 0.9


def test_no_name_is_left_as_a_whole(redacted: list[tuple[str, dict[str, int]]]) -> None:
    names = [
        (re.findall(r"[\[{]([^]}]+)[\]}]", line), text) for line, (text, _) in zip(LABELLED, redacted, strict=True)
    ]
    left = [name for several, text in names for name in several if name in text]
    assert len(left) <= 4, left


def test_kinds_follow_the_recipe() -> None:
    text = "Tim Cook of Microsoft lives in California."
    assert NameRedactor(Names(kinds=("places",))).redact([text]) == [
        ("Tim Cook of Microsoft lives in <PLACE>.", {"place": 1})
    ]
    found = NameRedactor(Names(kinds=("persons", "places", "organisations"))).redact([text])
    assert found == [("<PERSON> of <ORGANISATION> lives in <PLACE>.", {"person": 1, "organisation": 1, "place": 1})]


def test_placeholders_and_code_stay() -> None:
    text = "Write to <EMAIL> or <PHONE>. Call numpy.ndarray.max(AXIS_1) and os.PathLike, then read <KEY>."
    assert NameRedactor(Names(kinds=("persons", "places", "organisations"))).redact([text]) == [(text, {})]


def test_no_texts_and_empty_texts() -> None:
    assert NameRedactor(Names()).redact([]) == []
    assert NameRedactor(Names()).redact(["", "\n"]) == [("", {}), ("\n", {})]


def test_a_model_that_is_not_installed_is_told() -> None:
    with pytest.raises(TidemillError, match="no_such_model") as told:
        NameRedactor(Names(model="no_such_model"))
    assert "pip install tidemill[names]" in told.value.remedy
