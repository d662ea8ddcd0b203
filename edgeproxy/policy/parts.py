"""What hooks take that are asked about a part of a request: an attempt, a rule, a response."""

from collections.abc import Callable

from edgeproxy.errors import PolicyError
from edgeproxy.policy.call import Call, Failure
from edgeproxy.policy.verdict import Verdict
from edgeproxy.sip import Request


class Part(Call):
    """What hooks take that are asked about a part of a request: no attempts can be made there."""

    __slots__ = ()

    async def _tried(self, verdict: Verdict) -> Failure | None:
        raise PolicyError("no attempts can be made in a hook that is asked about a part of a request")

    def limit(self, name: str, key: str, most: int | None = None) -> None:
        """Raise `PolicyError`: whether the call has a place is known by now."""
        raise PolicyError("call.limit: not in a hook that is asked about a part of a request")

    def ban(self, seconds: int, reason: str) -> None:
        """Raise `PolicyError`: the sender has been heard."""
        raise PolicyError("call.ban: not in a hook that is asked about a part of a request")


class Branch(Part):
    """One attempt that is about to be made. What is changed here goes out with this attempt only."""

    __slots__ = ("attrs", "carrier_attrs", "number", "target", "to_gateway")

    def __init__(self, request: Request, token: bytes, send: Callable[[bytes, bytes], bool], target: str, number: int) -> None:
        super().__init__(request, token, send)
        self.target, self.to_gateway, self.attrs, self.carrier_attrs = target.split("\x1f", 3)
        """Where it goes: `transport:address:port`; the gateway (`dr_gateways.gwid`) or machine of a pool that this is, with its `attrs`, and
        `dr_carriers.attrs` of the carrier that it was found by. The last three are empty where there is none."""
        self.number = number
        """Which attempt of its request it is, from 1."""


class ChosenRule(Part):
    """A call for which a rule of carrier routing was chosen. What is changed here goes out with all gateways of this call."""

    __slots__ = ("attrs", "handler", "rule")

    def __init__(self, request: Request, token: bytes, send: Callable[[bytes, bytes], bool], target: str) -> None:
        super().__init__(request, token, send)
        self.handler, rule, self.attrs = target.split("\x1f", 2)
        """The name by which the rule knows the handler, and `dr_rules.attrs`."""
        self.rule = int(rule)
        """`dr_rules.ruleid`."""


class PassingResponse(Part):
    """A response on its way to the caller. `request_uri` and what else only requests have means nothing here."""

    __slots__ = ("status_code", "target")

    def __init__(self, request: Request, token: bytes, send: Callable[[bytes, bytes], bool], target: str, status_code: int) -> None:
        super().__init__(request, token, send)
        self.target = target
        """Where it came from: `transport:address:port`."""
        self.status_code = status_code
        """Its status code."""
