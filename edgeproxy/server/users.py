"""Users of a running proxy: their credentials, and where they are."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy import _native
from edgeproxy.config import Config
from edgeproxy.config.database import database_url
from edgeproxy.server.credentials import CredentialService
from edgeproxy.server.location_store import LocationStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from edgeproxy.storage.location import LocationTable
    from edgeproxy.storage.subscribers import SubscriberTable

Log = Callable[..., None]
State = Callable[[str, int, str], None]


class _Prepared(NamedTuple):
    """What is read and written of users, and the terms that it was opened by."""

    terms: object = None
    subscribers: "SubscriberTable | None" = None
    bindings: "LocationTable | None" = None


class Users:
    """What the server process does for users."""

    def __init__(self, log: Log, state: State) -> None:
        self._log = log
        self.credentials = CredentialService(log, lambda status, details: state("credentials", status, details))
        self.location = LocationStore(log, lambda status, details: state("location", status, details))
        self._database: AsyncEngine | None = None
        self._prepared = self._used = _Prepared()
        self._task: asyncio.Task[None] | None = None

    async def prepare(self, config: Config, taken_over: Collection[str] | None = None) -> list[_native.BindingRow]:
        """Open what `config` needs, and return the bindings of the time before in the domains that are `taken_over`; raise `StorageError`. Nothing is used yet."""
        registrar = config.registrar
        persists = bool(registrar and registrar.persist)
        if not (persists or config.uses_credentials):
            self._prepared = _Prepared()
            return []
        if taken_over is None and _terms(config) == self._used.terms:
            # What goes on as it is needs no look at the database, which may be gone at this moment.
            self._prepared = self._used
            return []
        # A proxy without users needs no database, and none of the memory that libraries for one take.
        from edgeproxy.storage import Standing, open_engine, prepare, require  # noqa: PLC0415
        from edgeproxy.storage.location import LocationTable  # noqa: PLC0415

        if self._database is None:
            url = database_url(config)
            await prepare(url)
            self._database = open_engine(url)
        subscribers = None
        if config.uses_credentials:
            subscribers = await open_subscribers(self._database, config)
        bindings = None
        rows: list[_native.BindingRow] = []
        if registrar and registrar.persist:
            found, columns = await require(self._database, "location")
            table = LocationTable(self._database, columns)
            writable = found is Standing.OURS or "location" in config.database.writes
            if taken_over is not None:
                rows = await self.location.restore(table, registrar, taken_over, writable=writable)
            if writable:
                bindings = table
            else:
                self._log(
                    "bindings are not written", values={"because": "the database is not ours, and [database] writes does not name location"}
                )
        self._prepared = _Prepared(_terms(config), subscribers, bindings)
        return rows

    def use(self, config: Config) -> None:
        """Go by what was prepared."""
        self._used = self._prepared
        # A little less than a request waits, so that the answer still comes in time.
        self.credentials.use(self._used.subscribers, config.authentication.deadline_milliseconds / 1_000 * 0.9)
        self.location.use(self._used.bindings)

    def attach(self, engine: _native.Engine) -> None:
        """Serve `engine`."""
        self.credentials.attach(engine)
        self._task = asyncio.create_task(self.location.run(engine))

    async def detach(self) -> None:
        """Answer no questions any more; bindings are written until `finish`."""
        await self.credentials.stop()

    async def finish(self, engine: _native.Engine) -> None:
        """Write the rest, now that the workers have ended, and close the database."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.location.finish(engine)
        await self.close()

    async def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            await self._database.dispose()


def _terms(config: Config) -> object:
    """Return all that decides how the database of users is read and written."""
    registrar, terms = config.registrar, config.authentication
    asked = (terms.attributes, terms.preferences, terms.uri_table, terms.password_column, terms.use_domain)
    return bool(registrar and registrar.persist), config.uses_credentials and asked, _cases(config), config.database.writes


def _cases(config: Config) -> tuple[bool, dict[str, bool]]:
    """Return whether users have a case, and in which domains that is otherwise."""
    registrar = config.registrar
    if registrar is None:
        return True, {}
    return registrar.case_sensitive, {name.lower(): registrar.is_case_sensitive(name) for name in registrar.domain}


async def open_subscribers(database: "AsyncEngine", config: Config) -> "SubscriberTable":
    """Return the credentials as the configuration has them; raise `StorageError` where a table or column is not there."""
    from edgeproxy.storage.subscribers import Attributes, SubscriberTable  # noqa: PLC0415 - as above

    terms = config.authentication
    attributes = Attributes(terms.attributes, terms.preferences, terms.uri_table)
    sensitive, of_domains = _cases(config)
    return await SubscriberTable.open(
        database, terms.password_column, terms.use_domain, attributes, case_sensitive=sensitive, case_of_domains=of_domains
    )
