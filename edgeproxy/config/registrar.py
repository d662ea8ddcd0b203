"""`[registrar]`: users who register here, and how they are reached."""

import ipaddress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.address import check_host, unmapped
from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath
from edgeproxy.config.routing import FinalCode

Seconds = Annotated[int, Meta(ge=1, le=2_147_483_647)]
_NAME = 64
_PRIVATE = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
]


def alias_problem(name: str) -> str:
    """Return what is wrong with `user@domain`; empty where nothing is."""
    user, at, domain = name.rpartition("@")
    try:
        check_host(domain.strip("[]"))
        good = (
            bool(at and user) and "@" not in user and user.isprintable() and " " not in user and len(user) <= _NAME and len(domain) <= _NAME
        )
    except ValueError:
        good = False
    return "" if good else f"expected user@domain, got: {name}"


def networks(texts: list[str]) -> list[tuple[str, int]]:
    """Return networks as the native side reads them; raise `ValueError` for what is none."""
    found = [unmapped(ipaddress.ip_network(text, strict=False)) for text in texts]
    return [(str(network.network_address), network.prefixlen) for network in found]


def check_networks(texts: list[str], path: KeyPath, faults: Faults) -> None:
    """Check that each text is a network."""
    for text in texts:
        try:
            networks([text])
        except ValueError:
            faults.add(path, f"expected an address or a network, got: {text}")


class Contacts(msgspec.Struct, frozen=True):
    """`[registrar.contacts]`: Contacts that nobody may register. Addresses of our listeners, of the core, of gateways and of trusted peers are always among them."""

    forbidden: list[str] = field(default_factory=list)
    """Networks that no Contact may lie in; multicast and the unspecified address never may."""
    private: list[str] = field(default_factory=lambda: list(_PRIVATE))
    """Networks whose addresses are taken from their owner only: a Contact there must be where the REGISTER came from, or its phone is behind a NAT and reached by its flow."""
    resolve: bool = True
    """Whether a Contact that is a name is looked up, and refused where it leads to such an address."""
    answer_status_code: FinalCode = 476
    """The answer to whoever tries."""
    answer_reason_phrase: str = "Contact Unacceptable"
    """And its text."""
    most: Annotated[int, Meta(ge=1, le=100)] = 10
    """Contacts of one REGISTER."""


class KeepAlive(msgspec.Struct, frozen=True):
    """`[registrar.keep_alive]`: what keeps the way to phones open."""

    method: Literal["off", "crlf", "options"] = "crlf"
    """`crlf`: two line ends, which cost least and open the way from inside of most NATs only if the phone answers. `options`: an OPTIONS, whose answer does, and tells that the phone is alive."""
    interval_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 30
    """Between two to the same phone; all are spread evenly over it."""
    natted_only: bool = True
    """Whether only phones behind a NAT get them."""
    most_lost: Annotated[int, Meta(ge=0, le=255)] = 0
    """OPTIONS in a row without an answer after which a binding is removed; 0: none is."""
    dead_status_codes: list[Annotated[int, Meta(ge=200, le=699)]] = field(default_factory=list)
    """Answers that do not count as alive; by default all do."""


class Domain(msgspec.Struct, frozen=True):
    """`[registrar.domain."NAME"]`: what is otherwise for users of one of `domains`; whatever is not said is as `[registrar]` says."""

    default_expires_seconds: Seconds | None = None
    """As in `[registrar]`, and so are the others."""
    min_expires_seconds: Seconds | None = None
    """The same."""
    max_expires_seconds: Seconds | None = None
    """The same."""
    short_expires: Literal["raise", "refuse"] | None = None
    """The same."""
    spread_percent: Annotated[int, Meta(ge=0, le=50)] | None = None
    """The same."""
    max_contacts: Annotated[int, Meta(ge=1, le=100)] | None = None
    """The same."""
    too_many_contacts: Literal["refuse", "replace_oldest"] | None = None
    """The same."""
    same_call_id_replaces: bool | None = None
    """The same."""
    case_sensitive: bool | None = None
    """The same."""


class Registrar(msgspec.Struct, frozen=True):
    """`[registrar]`: who registers here. Without it every REGISTER goes to the core."""

    domains: list[str] = field(default_factory=list)
    """Domains whose users register here; registrations of others go on as they would without."""
    domains_from_database: bool = False
    """Whether the rows of the table `domain` are such domains too; `edgeproxy routes reload` reads them anew."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other names of users, `"sales@voice.example" = "alice@voice.example"`: calls for them go where the user registered, and the user may call from them. Nobody registers by one."""
    aliases_from_database: bool = False
    """Whether the rows of the table `dbaliases` are aliases too; `edgeproxy routes reload` reads them anew."""
    max_aliases: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000_000
    """Aliases at most; of more the configuration is refused."""
    mode: Literal["keep", "path", "contact"] = "keep"
    """`keep`: registrations are kept here. For a core that authenticates and keeps its users itself: `path`: they go there with a Path (RFC 3327) that leads back to the phone over us; `contact`: with a Contact that does, for cores that do not know Path. What the core grants is learnt from its answer."""
    upstream_expires_seconds: Annotated[int, Meta(ge=0, le=2_147_483_647)] = 0
    """With `path` and `contact`: asked of the core in the place of what phones ask for, at least twice `max_expires_seconds`; a refresh by the same flow that changes nothing is then answered here as long as the core keeps the binding. 0: each refresh goes to the core."""
    default_expires_seconds: Seconds = 3_600
    """Granted where none is asked for."""
    min_expires_seconds: Seconds = 60
    """Granted at least."""
    max_expires_seconds: Seconds = 7_200
    """Granted at most."""
    short_expires: Literal["raise", "refuse"] = "raise"
    """Whether one that asks for less than the least gets the least, or 423."""
    spread_percent: Annotated[int, Meta(ge=0, le=50)] = 5
    """How many percent a grant may be shorter by chance, so that phones that came at once do not come back at once."""
    max_contacts: Annotated[int, Meta(ge=1, le=100)] = 10
    """Bindings of one address of record."""
    too_many_contacts: Literal["refuse", "replace_oldest"] = "refuse"
    """Whether one too many is refused with 403, or takes the place of the oldest."""
    same_call_id_replaces: bool = False
    """Whether a new Contact takes the place of one with the same Call-ID: for phones that change address or port and name no `+sip.instance`. Against RFC 3261, where one Call-ID may have several."""
    forking: Literal["parallel", "serial"] = "parallel"
    """Whether bindings of the same preference are tried at once; those of a lower one come after them in any case."""
    case_sensitive: bool = True
    """Whether `Alice` and `alice` are two users (RFC 3261 section 19.1.4). Where they are one, rows of `subscriber` are found as the phone writes the name, and in lower case."""
    domain: dict[str, Domain] = field(default_factory=dict)
    """What is otherwise in one of `domains`, by its name."""
    max_records: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    """Addresses of record at once; others are answered 500. Each takes some 300 bytes with one binding."""
    persist: bool = True
    """Whether bindings are written to the table `location`, and read from there at start. Where it was off at a start, rows of before are left as they are: once it is on again, the next start takes over those whose time is not over, though their phones may have unregistered meanwhile."""
    write_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 5
    """How often what changed is written; after a crash so much is lost."""
    write_queue: Annotated[int, Meta(ge=1, le=100_000_000)] = 100_000
    """Removals that wait to be written, per worker, while the database is gone; of more the rows stay until their time is over."""
    contacts: Contacts = field(default_factory=Contacts)
    """Contacts that nobody may register."""
    keep_alive: KeepAlive = field(default_factory=KeepAlive)
    """What keeps the way to phones open."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not self.domains and not self.domains_from_database:
            faults.add((*path, "domains"), "expected at least one domain")
        for domain in self.domains:
            try:
                check_host(domain.strip("[]"))
            except ValueError as error:
                faults.add((*path, "domains"), f"{error}, got: {domain}")
        if not self.min_expires_seconds <= self.default_expires_seconds <= self.max_expires_seconds:
            faults.add((*path, "default_expires_seconds"), "expected it between min_expires_seconds and max_expires_seconds")
        self._check_domains((*path, "domain"), faults)
        self._check_aliases((*path, "aliases"), faults)
        if self.upstream_expires_seconds and self.mode == "keep":
            faults.add(
                (*path, "upstream_expires_seconds"), 'expected mode "path" or "contact": registrations that are kept here go nowhere'
            )
        elif 0 < self.upstream_expires_seconds < 2 * self.max_expires_seconds:
            faults.add(
                (*path, "upstream_expires_seconds"),
                "expected at least twice max_expires_seconds, or no refresh could be answered here in time",
            )
        check_networks(self.contacts.forbidden, (*path, "contacts", "forbidden"), faults)
        check_networks(self.contacts.private, (*path, "contacts", "private"), faults)
        if not self.contacts.answer_reason_phrase.isprintable():
            faults.add((*path, "contacts", "answer_reason_phrase"), "expected printable text")

    def _check_domains(self, path: KeyPath, faults: Faults) -> None:
        first: dict[str, str] = {}
        for name in self.domain:
            if (other := first.setdefault(name.lower(), name)) != name:
                faults.add((*path, name), f"expected each domain once, this one is {other} too")
            if name.lower() not in map(str.lower, self.domains) and not self.domains_from_database:
                faults.add((*path, name), "expected one of `domains`", f"there are {', '.join(self.domains)}")
            own = self.of_domain(name)
            if not own.min_expires_seconds <= own.default_expires_seconds <= own.max_expires_seconds:
                faults.add((*path, name), "expected default_expires_seconds between min_expires_seconds and max_expires_seconds")
            if 0 < self.upstream_expires_seconds < 2 * own.max_expires_seconds:
                faults.add((*path, name), "expected upstream_expires_seconds of [registrar] to be at least twice max_expires_seconds")

    def is_case_sensitive(self, name: str) -> bool:
        """Whether users of a domain have a case."""
        return self.of_domain(name).case_sensitive if self.domain else self.case_sensitive

    def of_domain(self, name: str) -> "Registrar":
        """Return this as it is for users of a domain."""
        own = next((domain for known, domain in self.domain.items() if known.lower() == name.lower()), None)
        said = {key: value for key, value in msgspec.structs.asdict(own).items() if value is not None} if own else {}
        return msgspec.structs.replace(self, **said)

    def _rules(self) -> dict[str, Any]:
        return {
            "default_expires_seconds": self.default_expires_seconds,
            "min_expires_seconds": self.min_expires_seconds,
            "max_expires_seconds": self.max_expires_seconds,
            "raise_short": self.short_expires == "raise",
            "spread_percent": self.spread_percent,
            "max_contacts": self.max_contacts,
            "replace_oldest": self.too_many_contacts == "replace_oldest",
            "same_call_id_replaces": self.same_call_id_replaces,
            "case_sensitive": self.case_sensitive,
        }

    def _check_aliases(self, path: KeyPath, faults: Faults) -> None:
        names = set(map(str.lower, self.aliases))
        for alias, user in self.aliases.items():
            for name in (alias, user):
                if alias_problem(name):
                    faults.add(path, alias_problem(name))
            if user.lower() in names:
                faults.add(path, f"expected a user and not another alias, got: {user}")
            domain = alias.rpartition("@")[2].lower()
            if domain not in map(str.lower, self.domains) and not self.domains_from_database:
                faults.add(path, f"expected an alias in one of `domains`, got: {alias}")
        if len(self.aliases) > self.max_aliases:
            faults.add(path, f"expected max_aliases ({self.max_aliases}) at most, got {len(self.aliases)}")

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        contacts, keep_alive = self.contacts, self.keep_alive
        return {
            "domains": [domain.lower() for domain in self.domains],
            "aliases": list(self.aliases.items()),
            "mode": self.mode,
            "upstream_expires_seconds": self.upstream_expires_seconds,
            "rules": self._rules(),
            "rules_of": {name.lower(): self.of_domain(name)._rules() for name in self.domain},
            "forking": self.forking,
            "records": self.max_records,
            "persist": self.persist,
            "write_seconds": self.write_seconds,
            "write_queue": self.write_queue,
            "contacts": {
                "forbidden": networks(contacts.forbidden),
                "private": networks(contacts.private),
                "resolve": contacts.resolve,
                "status_code": contacts.answer_status_code,
                "reason_phrase": contacts.answer_reason_phrase,
                "most": contacts.most,
            },
            "keep_alive": {
                "method": keep_alive.method,
                "interval_seconds": keep_alive.interval_seconds,
                "natted_only": keep_alive.natted_only,
                "most_lost": keep_alive.most_lost,
                "dead_codes": keep_alive.dead_status_codes,
            },
        }
