"""Migrations of our own databases."""
