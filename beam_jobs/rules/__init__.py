"""The rules on a document: a file a rule or published set of rules, each with its reason codes and measures."""

from beam_jobs.rules import c4, fineweb, gopher, repetition, toxicity

# In the tables of a dataset each is a column of its own, null where the recipe's rules do not ask for it.
MEASURES: tuple[str, ...] = (
    *gopher.MEASURES,
    *repetition.MEASURES,
    *c4.MEASURES,
    *fineweb.MEASURES,
    *toxicity.MEASURES,
)

__all__ = ["MEASURES"]
