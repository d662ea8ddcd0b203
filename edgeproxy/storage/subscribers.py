"""Credentials of subscribers, in the table `subscriber`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import RowMapping, TableClause, column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from edgeproxy.errors import StorageError
from edgeproxy.storage.bounded import execute
from edgeproxy.storage.database import require, told

_HASHES = ("ha1", "ha1_sha256", "ha1_sha512t256")
_AT_ONCE = 500
"""Users in one statement: some databases bound the number of parameters."""


class Credentials(NamedTuple):
    """What a user is known by; what is not there is empty."""

    password: str
    ha1: str
    ha1_sha256: str
    ha1_sha512t256: str
    attributes: tuple[tuple[str, str], ...] = ()
    """What else is known of the account, by name."""


class Attributes(NamedTuple):
    """Where attributes of accounts are read."""

    columns: Sequence[str] = ()
    """Columns of `subscriber`."""
    preferences: bool = False
    """Rows of `usr_preferences`."""
    uris: bool = False
    """Rows of `uri`: users that an account may be besides its own."""


NO_ATTRIBUTES = Attributes()
_ALSO = "=uri"
"""The name under which those users cross."""
_PREFERENCES = table("usr_preferences", *(column(name) for name in ("username", "domain", "attribute", "value")))
_URIS = table("uri", *(column(name) for name in ("username", "domain", "uri_user")))


class _Row(NamedTuple):
    user: str
    domain: str
    credentials: Credentials


class SubscriberTable:
    """The table of one database, with what belongs to it."""

    def __init__(  # noqa: PLR0913 - what an account is read by
        self,
        engine: AsyncEngine,
        columns: Sequence[str],
        password_column: str,
        use_domain: bool,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        case_sensitive: bool = True,
        case_of_domains: Mapping[str, bool] | None = None,
    ) -> None:
        self._attributes = attributes
        self._engine = engine
        self._use_domain = use_domain
        self._case_sensitive = case_sensitive
        self._case_of_domains = dict(case_of_domains or {})
        self._password = password_column if password_column in columns else ""
        self._hashes = [name for name in _HASHES if name in columns]
        wanted = ["username", *(["domain"] if "domain" in columns else []), *self._hashes, *([self._password] if self._password else [])]
        wanted += attributes.columns
        self._source = table("subscriber", *(column(name) for name in dict.fromkeys(wanted)))

    @classmethod
    async def open(  # noqa: PLR0913 - as above
        cls,
        engine: AsyncEngine,
        password_column: str,
        use_domain: bool,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        case_sensitive: bool = True,
        case_of_domains: Mapping[str, bool] | None = None,
    ) -> "SubscriberTable":
        """Open the table; raise `StorageError` where it, a column or a table of attributes is not there."""
        _, columns = await require(engine, "subscriber")
        if missing := [name for name in attributes.columns if name not in columns]:
            raise StorageError(f"subscriber has no column {', '.join(missing)}\nhint: authentication.attributes names columns that it has")
        for name, read in (("usr_preferences", attributes.preferences), ("uri", attributes.uris)):
            if read:
                await require(engine, name)
        return cls(
            engine,
            sorted(columns),
            password_column,
            use_domain,
            attributes,
            case_sensitive=case_sensitive,
            case_of_domains=case_of_domains,
        )

    async def fetch(self, users: Sequence[tuple[str, str]], deadline_seconds: float) -> dict[tuple[str, str], Credentials]:
        """Return credentials by user and domain, without those that are not there; raise `StorageError`.

        Where users have no case, a row in lower case does for a user who is not written so; its hashes are of the name in the row.
        SQLite waits less than `deadline_seconds` for the lock of another; who waits no longer than that leaves none behind.
        """
        rows: dict[str, list[_Row]] = {}
        names = sorted({name for user, domain in users for name in (user, user if self._is_sensitive(domain) else user.lower())})
        try:
            async with self._engine.connect() as connection:
                parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
                for part in parts:
                    found = await execute(connection, select(self._source).where(self._source.c.username.in_(part)), {}, deadline_seconds)
                    for row in map(self._row, found.mappings()):
                        # MySQL gives the rows of a name in any case, to each part that has it in one.
                        known = rows.setdefault(row.user.lower(), [])
                        if not any((one.user, one.domain) == (row.user, row.domain) for one in known):
                            known.append(row)
                for source, read in ((_PREFERENCES, self._attributes.preferences), (_URIS, self._attributes.uris)):
                    if read:
                        await self._add_attributes(connection, source, parts, rows, deadline_seconds)
        except (SQLAlchemyError, OSError) as error:
            raise told(self._engine, error) from error
        picked = {(user, domain): self._pick(rows.get(user.lower(), []), user, domain) for user, domain in users}
        return {key: credentials for key, credentials in picked.items() if credentials}

    def _row(self, row: RowMapping) -> _Row:
        text = {name: str(row.get(name) or "") for name in (*_HASHES, self._password) if name}
        own = tuple((name, str(row[name])) for name in self._attributes.columns if row[name] is not None)
        md5, sha256, sha512 = (text.get(name, "") for name in _HASHES)
        credentials = Credentials(text.get(self._password, ""), md5, sha256, sha512, own)
        return _Row(str(row["username"]), str(row.get("domain") or "").lower(), credentials)

    async def _add_attributes(
        self, connection: AsyncConnection, source: TableClause, parts: Sequence[list[str]], rows: dict[str, list[_Row]], seconds: float
    ) -> None:
        """Add rows of another table to what is known of these users."""
        done: set[str] = set()
        for part in parts:
            found = await execute(connection, select(source).where(source.c.username.in_(part)), {}, seconds)
            # As above: one part was given all rows of a name, though it has it in another case.
            fresh = [row for row in found.mappings() if str(row["username"]) not in done]
            for row in fresh:
                self._add(source, row, rows)
            done |= {str(row["username"]) for row in fresh}

    def _add(self, source: TableClause, row: RowMapping, rows: dict[str, list[_Row]]) -> None:
        domain = str(row["domain"] or "").lower()
        pair = (str(row["attribute"]), str(row["value"])) if source is _PREFERENCES else (_ALSO, str(row["uri_user"]))
        user = str(row["username"])
        accounts = rows.get(user.lower(), [])
        # Of several accounts of one name each has its own; what is of a single one is its, whatever domain it says.
        own = [place for place, account in enumerate(accounts) if self._is_same(user, account.user, account.domain)]
        apart = self._use_domain or len(own) > 1
        for place in own:
            account = accounts[place]
            if not (domain and account.domain and domain != account.domain and apart):
                known = account.credentials
                accounts[place] = account._replace(credentials=known._replace(attributes=(*known.attributes, pair)))

    def _is_sensitive(self, domain: str) -> bool:
        return self._case_of_domains.get(domain.lower(), self._case_sensitive)

    def _is_same(self, user: str, other: str, domain: str) -> bool:
        """Whether both are one user of a domain."""
        return user == other or (not self._is_sensitive(domain) and user.lower() == other.lower())

    def _pick(self, rows: list[_Row], user: str, domain: str) -> Credentials | None:
        """Return the row of a user in a domain, or where the domain does not matter any."""
        own = [row for row in rows if self._is_same(user, row.user, domain)]
        exact = next((row.credentials for row in own if row.domain == domain.lower()), None)
        return exact or (None if self._use_domain or not own else own[0].credentials)
