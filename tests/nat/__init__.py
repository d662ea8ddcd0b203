"""Phones behind real NATs: run in a network namespace of their own by tests/integration/test_nat.py."""
