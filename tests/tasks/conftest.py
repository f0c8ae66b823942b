"""The tiny session of the generation tests."""

from tests.generation.conftest import session, tiny_root  # noqa: F401 - fixtures
