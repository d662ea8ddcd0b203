"""What a handler gets: the request, what may be done to it, and attempts to await."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from edgeproxy.errors import CallEnded, LookupFailed, PolicyError
from edgeproxy.policy.name_addr import read_name_addrs
from edgeproxy.policy.response import Response
from edgeproxy.policy.values import PolicyValues
from edgeproxy.policy.variables import Variables
from edgeproxy.policy.verdict import CONTINUE, GIVEN_UP, BestResponse, Edit, Next, Relay, Reply, Route, Verdict, encode
from edgeproxy.sip import Request, Uri

_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


class Failure(Response, frozen=True):
    """An attempt that did not end with a 2xx."""

    target: str
    """The target that was tried, or the peer; the gateway's name where `route` led there."""
    status_code: int
    """Its final status code; 408 where nobody answered, 503 where it could not be reached."""
    text: str = ""
    """The response as the caller would get it; empty where there was none."""

    @property
    def contacts(self) -> list[Uri]:
        """The URIs of Contact, such as those of a redirection, in order; what cannot be read is left out, a whole line where that is no list."""
        found = []
        for line in self.headers("Contact"):
            with contextlib.suppress(ValueError):
                for address in read_name_addrs(line):
                    with contextlib.suppress(ValueError):
                        found.append(Uri(address.uri))
        return found


class Call:
    """One request that opens something, in the hands of a policy.

    What is changed here goes out with the next attempt and with all later ones; each attempt starts from the request
    as it came. Names of the request (`request_uri`, `from_uri`, `header()` and so on) can be asked for here directly.
    """

    __slots__ = (
        "_anew",
        "_ban",
        "_edits",
        "_future",
        "_limits",
        "_media",
        "_notes",
        "_over",
        "_routing_number",
        "_send",
        "_target",
        "_variables",
        "asked",
        "ended_with",
        "failed_with",
        "request",
        "then",
        "token",
    )

    asked: object
    """What names the module that was asked last, where that is not the first."""
    database = ""
    """URL of the database that `sql` asks; the same for all calls of a process."""
    values = PolicyValues()
    """Counters and sets with expiry: of this node, or of all nodes that share a store."""
    sleeper: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)
    """What `sleep` waits with; a test has its own time."""

    def __init__(self, request: Request, token: bytes, send: Callable[[bytes, bytes], bool]) -> None:
        self.request = request
        self.token = token
        self.ended_with: int | None = None
        self.failed_with = 0
        self._send = send
        self._future: asyncio.Future[Failure | None] | None = None
        self._over: asyncio.Future[None] | None = None
        self.then: Callable[[], None] | None = None
        """What is to be done once attempts that were given up are over."""
        self._target = ""
        # Made where they are needed: most calls change little, and this runs for every one of them.
        self._edits: list[Edit] | None = None
        self._notes: dict[str, str] | None = None
        self._variables: Variables | None = None
        self._routing_number = ""
        self._media: bool | None = None
        self._limits: list[tuple[str, str, int | None]] | None = None
        self._ban: tuple[int, str] | None = None
        self._anew = False

    @property
    def variables(self) -> dict[str, Any]:
        """What handlers of this call keep for those that are asked about it later, and for its record: values that JSON can hold.

        16 KiB for names and values of a call. What a handler changes, others see once it has decided.
        """
        if self._variables is None:
            self._variables = Variables()
        return self._variables.own

    def learn(self, variables: str) -> None:
        """Take over what other handlers keep; what this one changed meanwhile stays."""
        if self._variables is None:
            if not variables:
                return
            self._variables = Variables()
        self._variables.learn(variables)

    @property
    def method(self) -> str:
        """The method."""
        return self.request.method

    @property
    def request_uri(self) -> Uri:
        """The Request-URI as it came."""
        return self.request.request_uri

    @property
    def from_uri(self) -> Uri:
        """The URI of From; raise `ValueError` where it is of no known form."""
        return self.request.from_uri

    @property
    def to_uri(self) -> Uri:
        """The URI of To; raise `ValueError` where it is of no known form."""
        return self.request.to_uri

    @property
    def peer(self) -> str:
        """The peer that sent the request."""
        return self.request.peer

    @property
    def gateway(self) -> str:
        """The gateway of the database (`dr_gateways.gwid`) that sent the request, by its address; empty where none did."""
        return self.request.gateway

    @property
    def account(self) -> str:
        """The account that the request proved to be of, `user@domain`; empty where it did not have to."""
        return self.request.account

    def attribute(self, name: str, otherwise: str = "") -> str:
        """Return the account's first attribute of this name: a column of `subscriber`, or a row of `usr_preferences`."""
        return next((value for own, value in self.request.account_attributes if own == name), otherwise)

    def attributes(self, name: str) -> list[str]:
        """Return all of this name."""
        return [value for own, value in self.request.account_attributes if own == name]

    @property
    def source(self) -> tuple[str, int]:
        """Address and port that it came from."""
        return self.request.source

    @property
    def call_id(self) -> str:
        """The Call-ID."""
        return self.request.call_id

    @property
    def trace_id(self) -> str:
        """The W3C trace id."""
        return self.request.trace_id

    @property
    def edits(self) -> Sequence[Edit]:
        """What was changed so far."""
        return self._edits or ()

    def header(self, name: str) -> str | None:
        """Return the first value of a header field of the request as it came."""
        return self.request.header(name)

    def headers(self, name: str) -> list[str]:
        """Return every value of a header field of the request as it came, line by line."""
        return self.request.headers(name)

    def set_header(self, name: str, value: str) -> None:
        """Replace every line of a header field by one."""
        self._edit({"action": "set", "name": name, "value": value})

    def add_header(self, name: str, value: str) -> None:
        """Add a line behind all others."""
        self._edit({"action": "add", "name": name, "value": value})

    def remove_header(self, name: str) -> None:
        """Remove every line of a header field."""
        self._edit({"action": "remove", "name": name, "value": ""})

    def set_request_uri(self, uri: Uri | str) -> None:
        """Replace the Request-URI; where the request goes is not changed by that."""
        self._edit({"action": "request_uri", "name": "", "value": str(uri)})

    def set_from(self, uri: Uri | str = "", display_name: str | None = None) -> None:
        """Give From another URI, another display name, or both; what is left out stays, and so does the tag.

        Answers to the caller have its own From. Raise `ValueError` where From has no URI of a known form.
        """
        name = _display_name(self.header("From") or "") if display_name is None else display_name
        self._edit({"action": "from", "name": "", "value": display_name_addr(name, uri or self.from_uri)})

    def set_routing_number(self, number: str) -> None:
        """Look rules up by this number instead of that of the Request-URI, which the gateway still gets: for ported numbers."""
        self._routing_number = number

    @property
    def routing_number(self) -> str:
        """The number that rules are looked up by; empty for that of the Request-URI."""
        return self._routing_number

    def relay_media(self, wanted: bool = True) -> None:
        """Have the media of this call's attempts from now on relayed, or not, whatever the file says; needs a `[media]`."""
        if not isinstance(wanted, bool):
            raise PolicyError(f"relay_media: expected True or False, got: {wanted!r}")
        self._media = wanted

    def _edit(self, edit: Edit) -> None:
        if self._edits is None:
            self._edits = []
        self._edits.append(edit)

    def note(self, name: str, value: str) -> None:
        """Write something into the call's record, 256 characters at most; a later note of one name replaces an earlier one."""
        if self._notes is None:
            self._notes = {}
        self._notes[name] = value
        if self.ended_with is not None:
            # The call may end before its handler does.
            self.keep()

    def keep(self) -> None:
        """Give what was noted since the answer, and variables that changed, to the call, while that lasts."""
        if not self.token:
            # It failed, and its record is written.
            return
        variables = self._variables.changed() if self._variables else []
        notes, self._notes = self._notes, None
        if notes or variables:
            self._send(self.token, encode(CONTINUE, notes=notes, more={"variables": variables}))

    def keep_what_came_after(self) -> None:
        """Give what changed to the call, where that goes on and its handler does: it may end before that."""
        if self.ended_with is not None:
            self.keep()

    def limit(self, name: str, key: str, most: int | None = None) -> None:
        """Let the call count for `key` of the `[limit.NAME]` of this name from the next verdict on; where that is full, it is refused as the limit says.

        `most` is how many the key may have, in place of what file and database say; what an operator set goes before. Without a call, only of a rate.
        """
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or not 0 <= most < 1 << 32):
            raise PolicyError(f"limit {name}: expected most to be an integer from 0 to 4294967295, got: {most!r}")
        if self._limits is None:
            self._limits = []
        self._limits.append((name, key, most))

    def ban(self, seconds: int, reason: str) -> None:
        """Let the proxy listen to the sender's address no more for so many seconds, from the next verdict on; what it gets for this request is up to that.

        Addresses of cores, gateways, trusted peers and exempt networks are never banned.
        """
        self._ban = (seconds, reason)

    @property
    def body(self) -> bytes:
        """The body."""
        return self.request.body

    async def attempt(
        self,
        *to: str,
        peer: str = "",
        parallel: bool = False,
        service: bool = False,
        first_answer_seconds: float | None = None,
        final_answer_seconds: float | None = None,
    ) -> Failure | None:
        """Try targets, or those of a peer, and return how that failed; None once it was answered.

        Time limits and `service` are those of `Relay`. Raise `CallEnded` where the caller gives up meanwhile.
        """
        self._target = peer or ", ".join(to)
        return await self._tried(Relay(to, peer, parallel, first_answer_seconds, final_answer_seconds, service))

    async def _tried(self, verdict: Verdict) -> Failure | None:
        if self._over:
            await asyncio.shield(self._over)
        if self.ended_with is not None:
            raise CallEnded(self.ended_with)
        if self._future and not self._future.done():
            raise PolicyError("attempts of this call are under way: await them first, or try several targets at once with fork()")
        future: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self._future = future
        if not self._send(self.token, self.encoded(verdict, report=True)):
            future.cancel()
            raise CallEnded(0)
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled() and self.ended_with is None:
                # A time limit of the handler's own: what it decides next is about a call that nothing is under way of.
                self._give_up()
            raise

    def _give_up(self) -> None:
        self._over = asyncio.get_running_loop().create_future()
        self._send(self.token, GIVEN_UP)

    def ends_attempts_for(self, then: Callable[[], None]) -> bool:
        """The handler is done. Where attempts of it are under way they end first, and `then` follows; false where there are none."""
        if self.ended_with is not None or not (self._over or (self._future and not self._future.done())):
            return False
        self.then = then
        if not self._over:
            self._give_up()
        return True

    def encoded(self, verdict: Verdict, *, report: bool = False) -> bytes:
        """Return `verdict` as it crosses, with what the handlers did before."""
        more: dict[str, object] = {}
        if report:
            more["report"] = True
        if self._routing_number:
            more["routing_number"] = self._routing_number
        if self._media is not None:
            more["media"] = self._media
        if self._ban:
            more["ban"], self._ban = self._ban, None
        if self._limits:
            # They are taken once.
            more["limits"], self._limits = self._limits, None
        if self._anew:
            more["anew"], self._anew = True, False
        if self._variables and (variables := self._variables.changed()):
            more["variables"] = variables
        # They cross once.
        notes, self._notes = self._notes, None
        return encode(verdict, edits=self.edits, notes=notes, more=more)

    @property
    def is_plain(self) -> bool:
        """Whether nothing was done to the request."""
        return not (
            self._edits
            or self._notes
            or self._variables is not None
            or self._routing_number
            or self._anew
            or self._limits
            or self._ban
            or self._media is not None
        )

    async def route(  # noqa: PLR0913
        self,
        number: str = "",
        *,
        route: str = "",
        group: int | None = None,
        fall_back: bool | None = None,
        whole_number: bool | None = None,
        whitelist: Sequence[str] = (),
    ) -> AsyncIterator[Failure]:
        """Try the gateways of the rules for `number` one after the other and give each failure; going on tries the next.

        The loop ends with an answer, or where no gateway is left: at once where no rule fits, or none is usable. What is
        left out is as `[route.NAME]` says, by default the first of the file; its `retry` is for calls without a policy. Raise
        `CallEnded` where the caller gives up.
        """
        verdict: Verdict = Route(number, route, group, fall_back, whole_number, tuple(whitelist))
        while (failure := await self._tried(verdict)) is not None and failure.status_code:
            yield failure
            verdict = Next()

    def forget_attempts(self) -> None:
        """Forget what was tried so far: it asked a service, and tried nobody. None of its responses goes to the caller.

        Leaving the decision to others (`CONTINUE`) then means what it means for a request that has just come.
        """
        self._anew = True

    async def attempts(
        self, targets: Iterable[str], *, first_answer_seconds: float | None = None, final_answer_seconds: float | None = None
    ) -> AsyncIterator[Failure]:
        """Try targets one after the other and give each failure; the loop ends with an answer or with the last target."""
        for target in targets:
            failure = await self.attempt(target, first_answer_seconds=first_answer_seconds, final_answer_seconds=final_answer_seconds)
            if failure is None:
                return
            yield failure

    def best_response(self, otherwise: Reply | None = None) -> Verdict:
        """Return the verdict that sends the best response of all attempts, or `otherwise` where none was answered."""
        return BestResponse(otherwise)

    async def sleep(self, seconds: float) -> None:
        """Wait; the deadline of the handler runs on."""
        await Call.sleeper(seconds)

    async def http_json(
        self,
        url: str,
        *,
        method: str = "GET",
        params: Mapping[str, str] | None = None,
        json: Any = None,
        deadline_seconds: float = 1.0,
    ) -> dict[str, Any]:
        """Ask an HTTP service and return its JSON object; raise `LookupFailed` for anything else, and past the deadline.

        The request carries the call's trace id in `traceparent` (W3C Trace Context).
        """
        from edgeproxy.policy.http import fetch_json  # noqa: PLC0415 - a policy that asks nobody needs no HTTP client

        try:
            return await fetch_json(url, method=method, params=params, json=json, deadline_seconds=deadline_seconds, trace_id=self.trace_id)
        except LookupFailed:
            if self.ended_with is not None:
                raise CallEnded(self.ended_with) from None
            raise

    async def sql(
        self, statement: str, parameters: Mapping[str, Any] | None = None, *, deadline_seconds: float = 1.0
    ) -> list[dict[str, Any]]:
        """Run a statement on `install.database` and return its rows, 1,000 at most, each by its columns.

        Values go into `parameters` (`:name` in the statement), never into the text. Raise `LookupFailed` for anything but an
        answer, and past the deadline.
        """
        from edgeproxy.policy.sql import fetch  # noqa: PLC0415 - a policy that asks no database needs no library for it

        try:
            return await fetch(self.database, statement, parameters or {}, deadline_seconds)
        except LookupFailed:
            if self.ended_with is not None:
                raise CallEnded(self.ended_with) from None
            raise

    async def fork(
        self, *to: str, peer: str = "", first_answer_seconds: float | None = None, final_answer_seconds: float | None = None
    ) -> Failure | None:
        """Try targets, or those of a peer, all at once; return how the last to fail failed, None once one has answered."""
        return await self.attempt(
            *to, peer=peer, parallel=True, first_answer_seconds=first_answer_seconds, final_answer_seconds=final_answer_seconds
        )

    def why_ended(self) -> CallEnded | None:
        """Return what a handler sees where its request is over; None while it is not."""
        return None if self.ended_with is None else CallEnded(self.ended_with)

    def failed(self, token: bytes, status_code: int, target: str = "", response: bytes = b"") -> None:
        """The attempts under way failed: whoever awaits them goes on."""
        self.token = token
        self._attempts_are_over()
        if self._future and not self._future.done():
            self._future.set_result(Failure(target or self._target, status_code, response.decode(errors="replace")))

    def ended(self, status_code: int, of_call: bytes = b"") -> None:
        """The request is over: whoever awaits an attempt goes on. `of_call` is the token of a call that was answered."""
        self.ended_with = status_code
        self.token = of_call
        self._attempts_are_over()
        if self._future and not self._future.done():
            if 200 <= status_code < 300:
                self._future.set_result(None)
            else:
                self._future.set_exception(CallEnded(status_code))
                # Whoever awaits it is told; where its handler is done already nobody does.
                self._future.exception()

    def _attempts_are_over(self) -> None:
        if self._over and not self._over.done():
            self._over.set_result(None)
        self._over = None


def display_name_addr(name: str, uri: Uri | str) -> str:
    """Return a URI with a display name, quoted, if it has one (RFC 3261 section 25.1)."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{uri}>' if name else f"<{uri}>"


def _display_name(value: str) -> str:
    """Return the display name of a name-addr, without quotes."""
    if match := _QUOTED.match(value):
        return _ESCAPED.sub(r"\1", match[1])
    return value.split("<", 1)[0].strip() if "<" in value else ""
