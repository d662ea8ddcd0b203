"""The part of the API that is about rules and gateways of carriers."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgeproxy.errors import StorageError
from edgeproxy.server.route_explanation import Asked

if TYPE_CHECKING:
    from edgeproxy.server.control import Control


class ExplainQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which number to explain."""

    number: Annotated[str, Meta(min_length=1, max_length=256)]
    route: str = ""
    peer: str = ""
    """The peer that calls: its route is taken."""
    group: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    caller: Annotated[str, Meta(max_length=256)] = ""
    """User, or `user@domain`, that calls: its group in `dr_groups` is taken."""
    at: str = ""
    """ISO 8601 with an offset; empty for now."""


class GatewayQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which gateways to list."""

    down: bool = False


class Switch(msgspec.Struct, forbid_unknown_fields=True):
    """A gateway or carrier to switch."""

    id: str
    on: bool
    kind: Literal["gateway", "carrier"] = "gateway"
    partition: str = ""


class SetQuality(msgspec.Struct, forbid_unknown_fields=True):
    """A pair of rule and gateway to reset, or with `on` to switch."""

    rule: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
    gateway: str
    partition: str = ""
    on: bool | None = None


class Figures(msgspec.Struct):
    """Figures of a pair over the window."""

    asr: float
    ccr: float
    pdd: float
    ast: float
    acd: float
    samples: list[int]


class QualityView(msgspec.Struct):
    """How a gateway does for a rule."""

    partition: str
    rule: int
    gateway: str
    grade: str
    switched_off: bool
    figures: Figures


class SwitchMachine(msgspec.Struct, forbid_unknown_fields=True):
    """A machine of a pool to switch."""

    peer: str
    uri: str
    on: bool


class GatewayView(msgspec.Struct):
    """What is known of a gateway or carrier."""

    id: str
    kind: str
    partition: str
    switched_off: bool
    down: str | None
    usable: bool
    live_calls: int
    attempts: int
    answered: int
    silent: int
    rang_out: int
    unreachable: int
    refused: list[int]
    """By class, from 3xx to 6xx."""
    post_dial_delay_milliseconds: int
    rang: int
    call_seconds: int
    calls_ended: int
    max_calls: int
    calls_per_second: int
    full: int
    """Attempts that it had no place for."""
    uri: str = ""

    @property
    def calls(self) -> str:
        """Those under way, of those that it may have."""
        return f"{self.live_calls} of {self.max_calls}" if self.max_calls else str(self.live_calls)

    @property
    def finished(self) -> int:
        """Attempts that ended, but for those that the caller gave up, which say nothing of the gateway."""
        return self.answered + self.silent + self.rang_out + self.unreachable + sum(self.refused)

    @property
    def state(self) -> str:
        """In words."""
        if self.switched_off:
            return "switched off"
        if self.down:
            return f"down: {self.down}" + (" (on trial)" if self.usable else "")
        return "up" if self.usable else "no usable gateway"


class DestinationExplanation(msgspec.Struct):
    """One gateway that a rule leads to."""

    gateway: str
    carrier: str
    weight: int
    request_uri: str
    used: bool
    why: str


class RuleStep(msgspec.Struct):
    """One rule that was looked at."""

    prefix: str
    rule: int
    priority: int
    used: bool
    why: str
    destinations: list[DestinationExplanation]


class RuleExplanation(msgspec.Struct):
    """Why a number goes where it goes."""

    route: str
    number_rule: str
    """The rule that made it the number that was looked up; empty where none did."""
    number: str
    group: int
    why: str
    rules: list[RuleStep]


def explain(control: "Control", query: ExplainQuery) -> dict[str, Any]:
    """Return the explanation; raise `StorageError` where there is none."""
    route = query.route
    if query.peer:
        peer = control.loaded.config.peer.get(query.peer)
        if peer is None or not (route or peer.route):
            raise StorageError(f"no such peer{'' if route else ', or one without a route'}: {query.peer}")
        route = route or peer.route
    try:
        moment = datetime.fromisoformat(query.at) if query.at else None
        if moment and moment.tzinfo is None:
            moment = moment.astimezone()
    except (ValueError, OverflowError):
        raise StorageError(f"at: expected for example 2026-12-24T18:00:00+01:00, got: {query.at}") from None
    return control.routes.serving().explain(Asked(query.number, route, query.group, moment, query.peer, query.caller))
