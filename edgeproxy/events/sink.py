"""`[events.sink.NAME]`: who is told of events outside, and on what terms."""

import fnmatch
import re
from typing import Annotated, ClassVar
from urllib.parse import SplitResult, parse_qs, urlsplit

import msgspec
from msgspec import Meta, field

from edgeproxy.events.catalogue import CATALOGUE, is_known, name_of, parameter_names
from edgeproxy.events.event import Event

PARAMETER = re.compile(r"\{(\w+)\}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header field's name (RFC 9110 section 5.6.2)."""
"""The name of a parameter in an argument of a command."""
SCHEMES = ("http", "https", "udp", "unix", "file", "amqp", "amqps", "nats", "tls", "redis", "rediss", "kafka", "kafkas")


class Told(msgspec.Struct):
    """An event as it leaves: one JSON object in UTF-8."""

    event: str
    """Its name."""
    time: str
    """RFC 3339 in UTC, to the microsecond."""
    node: str
    """`install.node`."""
    parameters: dict[str, int | str]
    """As the table below has them. Texts may come from the network."""

    @classmethod
    def of(cls, event: Event, node: str) -> "Told":
        """Return an event of a node as it leaves."""
        return cls(name_of(event), event.time_text, node, event.parameters())


class Sink(msgspec.Struct, frozen=True):
    """One `[events.sink.NAME]`: events to somebody outside. Whoever is slow or gone loses some, which is counted; nobody waits for him."""

    events: list[str]
    """Events that it is told, by name; `*` for all of the proxy."""
    to: str = ""
    """`http://` or `https://` (a POST each; certificates are verified), `udp:host:port` and `unix:/path` (a datagram each), `file:/path` (lines), `amqp://user:password@host/vhost?exchange=X&routing_key=Y` (RabbitMQ), `nats://host:port/subject`, `redis://host:port/0?stream=NAME` (a Redis stream), `kafka://host:port,host:port/topic`; with TLS `amqps`, `tls` (NATS), `rediss`, `kafkas`."""
    command: list[str] = field(default_factory=list)
    """A program with its arguments, run for each event without a shell; `{ip}` in an argument is the parameter of that name, `{event}` the name. The JSON comes on its standard input. Only the file can name one."""
    where: dict[str, str] = field(default_factory=dict)
    """Parameters that must look like these shell patterns, such as `{ state = "blocked" }`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Header fields of the POST, such as a token; never logged."""
    most_per_second: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """More than so many in a second are dropped and counted; 0: no such limit."""
    queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Events that may wait; more are dropped and counted."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 5.0
    """Longest wait for one delivery, or for a program to end."""
    tries: Annotated[int, Meta(ge=1, le=100)] = 3
    """Deliveries of one event that are tried, with longer and longer pauses; a program is run once."""
    concurrent: Annotated[int, Meta(ge=1, le=1_000)] = 4
    """Programs at once."""
    stream_length: Annotated[int, Meta(ge=1)] = 100_000
    """Entries that a Redis stream keeps, about."""

    ALL: ClassVar[str] = "*"

    @property
    def names(self) -> list[str]:
        """The events that it is told."""
        return sorted({*CATALOGUE, *self.events} - {self.ALL}) if self.ALL in self.events else self.events

    @property
    def place(self) -> SplitResult:
        """`to`, taken apart."""
        return urlsplit(self.to)

    @property
    def shown(self) -> str:
        """Where it leads, without secrets."""
        if self.command:
            return self.command[0]
        place = self.place
        host = f"//{place.netloc.rpartition('@')[2]}" if place.netloc else ""
        return f"{place.scheme}:{host}{place.path}"

    def option(self, name: str, otherwise: str = "") -> str:
        """Return an option of `to`."""
        return parse_qs(self.place.query).get(name, [otherwise])[0]

    def wants(self, event: Event) -> bool:
        """Whether an event passes its filter."""
        if not self.where:
            return True
        values = event.parameters()
        return all(fnmatch.fnmatchcase(str(values.get(name, "")), pattern) for name, pattern in self.where.items())

    def problem(self) -> tuple[str, str, str] | None:
        """Return the key that is wrong, what is expected of it, and a hint; None where all is well."""
        return self._events_problem() or self._far_end_problem() or self._terms_problem()

    def _events_problem(self) -> tuple[str, str, str] | None:
        if not self.events:
            return "events", "expected at least one event, or *", ""
        for name in self.events:
            if name != self.ALL and not is_known(name):
                return "events", f"no such event: {name}", f"there are {', '.join(sorted(CATALOGUE))}; operators' own begin with X_"
        return None

    def _far_end_problem(self) -> tuple[str, str, str] | None:
        if bool(self.to) == bool(self.command):
            return "to", "expected either `to` or `command`", ""
        if any(character.isspace() for character in self.to) and not self.to.startswith(("unix:", "file:")):
            return "to", "expected a URL without spaces: %20 stands for one", ""
        if self.to and (fault := self._place_problem()):
            return "to", fault, ""
        if self.command and not self.command[0].startswith("/"):
            return "command", f"expected the absolute path of a program, got: {self.command[0]}", ""
        return None

    def _terms_problem(self) -> tuple[str, str, str] | None:
        known = {name for one in self.names if one in CATALOGUE for name in parameter_names(CATALOGUE[one])}
        # What events of policies have is theirs to say.
        any_name = any(one.startswith("X_") for one in self.events)
        for name in self.where:
            if name not in known and not any_name:
                return "where", f"no such parameter of these events: {name}", f"there are {', '.join(sorted(known))}"
        for name in (name for part in self.command[1:] for name in PARAMETER.findall(part)):
            if name not in {*known, "event"} and not any_name:
                return "command", f"no such parameter of these events: {name}", f"there are event, {', '.join(sorted(known))}"
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or not value.isprintable():
                return "headers", f"expected a header field's name and printable text, got: {name}", ""
            if name.lower() in {"content-encoding", "content-length", "host", "transfer-encoding"}:
                return "headers", f"{name} follows from the event and from `to`", ""
            if name.lower() == "authorization" and "@" in self.place.netloc:
                return "headers", "expected no Authorization beside a user in `to`: that is one already", ""
        return None

    def _place_problem(self) -> str:
        if self.place.scheme in {"kafka", "kafkas"}:
            return self._brokers_problem()
        try:
            place, port = self.place, self.place.port
        except ValueError as error:
            return f"not a URL: {error}"
        path = place.path.strip("/")
        # `*` and `>` stand for subjects where one is listened to, and name none (NATS).
        subject = all(part and part not in {"*", ">"} for part in path.replace("/", ".").split("."))
        host, _, number = place.path.rpartition(":")
        here = bool(place.hostname) and port != 0
        expected = {
            "udp": (host and number.isdecimal() and 0 < int(number) < 65_536, f"udp:host:port, got: {self.to}"),
            "unix": (place.path.startswith("/") and len(place.path.encode()) <= 107, f"unix:/path of at most 107 bytes, got: {self.to}"),
            "file": (place.path.startswith("/"), f"file:/path, got: {self.to}"),
            "redis": (
                here and (path.isdecimal() or not path) and self.option("stream"),
                "a host, the number of a database, and ?stream=NAME",
            ),
            "nats": (here and subject, "a host, and a subject"),
        }
        same = {"rediss": "redis", "tls": "nats"}
        if place.scheme not in SCHEMES:
            return f"expected one of {', '.join(SCHEMES)}, got: {place.scheme or self.to.rpartition('@')[2]}"
        holds, wanted = expected.get(same.get(place.scheme, place.scheme), (here, "a host"))
        return "" if holds else f"expected {wanted}"

    def _brokers_problem(self) -> str:
        place = self.place
        if "@" in place.netloc:
            return "expected no user and no password: brokers that ask for them are not spoken to"
        for broker in place.netloc.split(","):
            try:
                one = urlsplit(f"//{broker}")
                known = bool(one.hostname) and one.port != 0
            except ValueError:
                known = False
            if not known:
                return f"expected host:port, several with commas between, got: {broker}"
        return "" if place.path.strip("/") else "expected a topic"
