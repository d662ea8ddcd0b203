"""The bus, the catalogue, and handlers of events."""

import pytest

from edgeproxy import _native
from edgeproxy.events import CATALOGUE, Bus, Custom, Event, make, name_of, parameter_names, typed
from edgeproxy.policy import Policy, PolicyError
from edgeproxy.policy.chain import Chain
from edgeproxy.policy.dispatch import Dispatcher
from edgeproxy.policy.load import event_names


def test_native_events_are_those_of_the_catalogue() -> None:
    for name, parameters in _native.event_shapes():
        assert parameter_names(CATALOGUE[name]) == parameters


def test_an_event_is_made_of_its_parameters_or_refused() -> None:
    event = make("E_DISPATCHER_STATUS", 5, {"partition": "default", "group": "core", "address": "udp:192.0.2.1:5060", "status": "inactive"})
    assert (name_of(event), event.at, event.parameters()["group"]) == ("E_DISPATCHER_STATUS", 5, "core")
    mine = make("X_MINE", 1, {"a": 1})
    assert (mine.name, mine.parameters(), getattr(mine, "a", None)) == ("X_MINE", {"a": 1}, 1)
    with pytest.raises(AttributeError, match="X_MINE has no parameter b"):
        mine.b  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ValueError, match="no such event: E_NOPE"):
        make("E_NOPE", 1, {})
    with pytest.raises(ValueError, match="E_DISPATCHER_STATUS: Object missing required field `partition`"):
        make("E_DISPATCHER_STATUS", 1, {})


def test_the_bus_tells_who_listens_and_counts_what_is_not_taken() -> None:
    wanted: list[list[str]] = []
    bus = Bus(wanted.append)
    got: list[Event] = []
    first = bus.subscribe(["X_A", "X_B"], lambda event: not got.append(event), "first")
    with bus.subscribed(["X_B"], lambda event: False, "full"):
        assert bus.publish(Custom(own_name="X_B", values={})) == 1
        assert bus.subscribers() == {"X_A": ["first"], "X_B": ["first", "full"]}
    assert bus.publish(Custom(own_name="X_C", values={})) == 0
    bus.unsubscribe(first)
    assert bus.publish(Custom(own_name="X_B", values={})) == 0
    assert (len(got), bus.told, bus.dropped) == (1, 1, 1)
    assert wanted == [["X_A", "X_B"], ["X_A", "X_B"], ["X_A", "X_B"], []]


def test_handlers_of_events_are_called_and_what_they_raise_is_told() -> None:
    policy, seen, failures = Policy(), [], []

    @policy.on_event("X_A")
    def note(event: Event) -> None:
        seen.append(event.parameters())

    @policy.on_event("X_A", "E_CORE_LOG")
    def fail(event: Event) -> None:
        raise ValueError("on purpose")

    modules = [(policy, object())]
    dispatcher = Dispatcher(Chain(modules, {}), lambda token, verdict: True, lambda text, values: failures.append(values))
    dispatcher.event(make("X_A", 1, {"n": 1}))
    assert seen == [{"n": 1}]
    assert failures[0]["error"] == "ValueError: on purpose"
    assert event_names(modules) == ["E_CORE_LOG", "X_A"]


@pytest.mark.parametrize(("names", "problem"), [((), "name the events"), (("E_NOPE",), "no such event: E_NOPE")])
def test_a_handler_of_nothing_is_refused(names: tuple[str, ...], problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        Policy().on_event(*names)


def test_texts_become_what_an_event_has() -> None:
    assert typed("E_FRD_BARRED", {"user": "4930123", "seconds": "5", "reason": "7"}) == {"user": "4930123", "seconds": 5, "reason": "7"}
    own = {"a": "--5", "b": "\u00b2", "c": "007", "d": "-7", "e": "0", "f": "9" * 19, "g": ""}
    assert typed("X_OWN", own) == {**own, "d": -7, "e": 0}
    assert typed("E_NONE", {"a": "1"}) == {"a": 1}
