"""Fixtures of the tests of readers."""

from support.rows import write  # noqa: F401 - a fixture
