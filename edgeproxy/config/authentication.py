"""`[authentication]`: how subscribers prove who they are, and what is done against guessing."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath
from edgeproxy.config.registrar import check_networks, networks

Count = Annotated[int, Meta(ge=1, le=65_535)]
Entries = Annotated[int, Meta(ge=16, le=100_000_000)]


class Attacks(msgspec.Struct, frozen=True):
    """`[authentication.attacks]`: guessing of passwords and users. Wrong passwords and unknown users count, stale nonces do not."""

    window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Failures are counted in a window of so many seconds from the first one on."""
    pair_failures: Count = 20
    """Failures of one source as one user, after which it is refused as this user with 403 until the window ends."""
    user_failures: Count = 100
    """Failures as one user from anywhere, after which only sources are heard that the user came from before."""
    source_failures: Count = 200
    """Failures of one source as anybody, after which it is banned, unless somebody came in from there before."""
    ban_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 600
    """How long a ban lasts."""
    known_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 2_592_000
    """How long a source counts as one that a user came from; it ends with the process."""
    max_keys: Entries = 262_144
    """Sources and users that are counted at once, 16 bytes each; of more those with the fewest failures make room."""
    max_bans: Annotated[int, Meta(ge=1, le=10_000_000)] = 16_384
    """Sources that are banned at once."""
    exempt: list[str] = field(default_factory=list)
    """Networks that are never counted."""
    exempt_group: Annotated[int, Meta(ge=0)] | None = None
    """Rows of the table `address` with this `grp` are such networks too; by default none are."""


class Authentication(msgspec.Struct, frozen=True):
    """`[authentication]`: digest (RFC 3261 section 22, RFC 7616, RFC 8760), for peers with `authenticate`. Credentials are those of the table `subscriber`."""

    realm: str = ""
    """The realm; empty: the domain that the request is of. HA1 in the database must have been made for it."""
    algorithms: list[Literal["MD5", "SHA-256", "SHA-512-256"]] = field(default_factory=lambda: ["MD5"])
    """Algorithms that are offered, the strongest first whatever the order here. A phone may choose any, so that each user needs `password` or the HA1 of each."""
    use_domain: bool = False
    """Whether `subscriber.domain` must be that of the request; else the user name alone tells."""
    password_column: str = "password"  # noqa: S105
    """Column of the clear password; empty: only HA1 are read."""
    attributes: list[str] = field(default_factory=list)
    """Further columns of `subscriber` that are attributes of the account: policies ask `call.attribute(name)`, the record of a call has them as notes `account.NAME`. 32 of an account at most, 256 bytes each."""
    preferences: bool = False
    """Whether rows of `usr_preferences` are attributes too, by `attribute` and `value`."""
    caller_numbers: str = ""
    """The attribute that lists, with commas between, numbers which an account may call from besides its own user; empty: it may from its own only."""
    uri_table: bool = False
    """Whether rows of `uri` give an account further users that it may be, for registrations too."""
    protect_body: bool = False
    """Whether `auth-int` is offered too, which protects the body."""
    nonce_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """How long a nonce may be answered, any number of times with a count, once without."""
    max_nonces: Entries = 65_536
    """Nonces in use at once, per worker, some 40 bytes each; of more the oldest must be asked for anew."""
    max_credentials: Entries = 1_000_000
    """Users whose credentials are kept, per worker."""
    fresh_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """How long they are taken for right: so long an old password still works."""
    stale_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 86_400
    """How long they are used while the database is silent."""
    deadline_milliseconds: Annotated[int, Meta(ge=10, le=30_000)] = 2_000
    """Longest wait for the database; then 500 with Retry-After."""
    max_waiting: Annotated[int, Meta(ge=1, le=10_000_000)] = 20_000
    """Requests that wait for credentials or names at once, per worker."""
    attacks: Attacks = field(default_factory=Attacks)
    """What is done against guessing."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not self.algorithms:
            faults.add((*path, "algorithms"), "expected at least one algorithm")
        if self.password_column and not self.password_column.isidentifier():
            faults.add((*path, "password_column"), f"expected the name of a column, got: {self.password_column}")
        for name in self.attributes:
            if not name.isidentifier():
                faults.add((*path, "attributes"), f"expected the name of a column, got: {name}")
        if self.caller_numbers and self.caller_numbers not in self.attributes and not self.preferences:
            faults.add((*path, "caller_numbers"), f"expected one of `attributes`, or `preferences`, got: {self.caller_numbers}")
        if not self.realm.isprintable():
            faults.add((*path, "realm"), "expected printable text")
        check_networks(self.attacks.exempt, (*path, "attacks", "exempt"), faults)

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        attacks = self.attacks
        return {
            "caller_numbers": self.caller_numbers,
            "realm": self.realm,
            "algorithms": self.algorithms,
            "protect_body": self.protect_body,
            "nonce_seconds": self.nonce_seconds,
            "nonces": self.max_nonces,
            "credentials": self.max_credentials,
            "fresh_seconds": self.fresh_seconds,
            "stale_seconds": self.stale_seconds,
            "deadline_milliseconds": self.deadline_milliseconds,
            "waiting": self.max_waiting,
            "attacks": {
                "window_seconds": attacks.window_seconds,
                "pair_failures": attacks.pair_failures,
                "user_failures": attacks.user_failures,
                "source_failures": attacks.source_failures,
                "ban_seconds": attacks.ban_seconds,
                "known_seconds": attacks.known_seconds,
                "keys": attacks.max_keys,
                "bans": attacks.max_bans,
                "exempt": networks(attacks.exempt),
            },
        }
