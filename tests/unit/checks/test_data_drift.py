from __future__ import annotations

import pytest

from checks.data_drift import SchemaDrift, schema_drift, types_of


@pytest.mark.parametrize(
    ("columns", "types"),
    [
        ({"text:string": 10}, {"text": "string"}),
        ({"views:int": 4, "views:string": 6}, {"views": "string"}),
        ({"views:null": 9, "views:int": 1}, {"views": "int"}),  # most have none, those that do have numbers
        ({"views:null": 9}, {"views": "null"}),
        ({"text:string": 1000, "typo:string": 1}, {"text": "string"}),
        ({"a:b:string": 5}, {"a:b": "string"}),
        ({}, {}),
    ],
)
def test_the_type_of_a_column(columns: dict[str, int], types: dict[str, str]) -> None:
    assert types_of(columns) == types


def test_what_is_new_missing_and_of_another_type() -> None:
    before = [
        {"text:string": 9, "views:int": 9, "title:string": 9},
        {"text:string": 9, "views:int": 9, "lang:string": 9},
    ]
    now = {"text:string": 9, "title:list": 9, "extra:int": 9}
    assert schema_drift(now, before) == SchemaDrift(
        new=("extra",), missing=("views",), types=("title (was string, is list)",)
    )
    assert schema_drift(before[0], before) == SchemaDrift()  # no drop need have what only some had


def test_drops_without_columns_say_nothing() -> None:
    assert schema_drift({"text:string": 1}, [{"text:string": 1}, {}]) == SchemaDrift()
