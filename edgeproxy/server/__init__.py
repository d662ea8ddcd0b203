"""Wires it all: starts the engine, prints its log, changes its configuration, and ends it in order.

Nothing is imported here: a policy process needs little of it.
"""
