"""The fixtures of the integration tests."""

from tests.integration.conftest import local, start_proxy

__all__ = ["local", "start_proxy"]
