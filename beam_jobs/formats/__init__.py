"""From an object's bytes to documents and dead letters: a file a format, and what they share."""

from beam_jobs.formats.extract import extract
from beam_jobs.formats.extracted import Extracted

__all__ = ["Extracted", "extract"]
