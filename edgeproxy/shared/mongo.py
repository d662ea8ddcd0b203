"""MongoDB: documents that change only where nobody else has changed them since they were read."""

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from pymongo import AsyncMongoClient, ReturnDocument
from pymongo.errors import DuplicateKeyError, PyMongoError

from edgeproxy.shared.balance import Held, balance
from edgeproxy.shared.store import CONNECTIONS, Ask, Beat, Grant, StoreFailed, told_by

TRIES = 10
"""Times that a document is changed anew where others were faster."""
SHORT_SECONDS = 1
"""How long whoever looks for places of a key believes what others told since it began to."""
CLOCK_SECONDS = 30
"""How long the server's time is reckoned on from one answer: machines are suspended, and clocks are set."""
_told = told_by(PyMongoError, OSError)


def _alive(nodes: dict[str, dict[str, Any]], now: datetime) -> set[str]:
    """Return those nodes whose lease is not over; each has its own."""
    return {name for name, one in nodes.items() if name and one["at"] + timedelta(seconds=one["lease"]) >= now}


class MongoStore:
    """One database; times are those of the server."""

    def __init__(self, url: str, prefix: str, deadline_seconds: float) -> None:
        milliseconds = round(deadline_seconds * 1_000)
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds,
            maxPoolSize=CONNECTIONS,
            w="majority",
            tz_aware=False,
        )
        database = self._client[urlsplit(url).path.strip("/") or "edgeproxy"]
        self._nodes, self._shares = database[f"{prefix}_nodes"], database[f"{prefix}_shares"]
        self._short, self._counts, self._sets = database[f"{prefix}_short"], database[f"{prefix}_counts"], database[f"{prefix}_sets"]
        self._said = database[f"{prefix}_said"]
        self._clock: tuple[datetime, float] | None = None

    async def _now(self) -> datetime:
        """Return the server's time, or a little earlier."""
        if self._clock is None or time.monotonic() - self._clock[1] > CLOCK_SECONDS:
            hello = await self._client.admin.command("hello")
            self._clock = (hello["localTime"], time.monotonic())
        at, since = self._clock
        return at + timedelta(seconds=time.monotonic() - since)

    @_told
    async def open(self) -> None:
        """As `Store.open`."""
        await asyncio.gather(*(self._client.admin.command("ping") for _ in range(CONNECTIONS)))
        # The server forgets what is over; exact ends are looked at here.
        for one in (self._short, self._counts, self._sets, self._said):
            await one.create_index("until", expireAfterSeconds=60)

    async def _node(self, node: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change what is known of a node, made where there is none; that of nobody says since when the store knows nodes."""
        found = await self._nodes.find_one_and_update({"_id": node}, change, upsert=True, return_document=ReturnDocument.AFTER)
        if found is None:
            raise StoreFailed("a document that was written was not returned")
        return found

    @_told
    async def beat(self, node: str, lease_seconds: float) -> Beat:
        """As `Store.beat`."""
        before = {one["_id"]: one async for one in self._nodes.find()}
        change = {"$currentDate": {"at": True}, "$set": {"lease": lease_seconds}}
        now: datetime = (await self._node(node, change))["at"]
        self._clock = (now, time.monotonic())
        alive = _alive(before, now)
        # Nodes that it does not know of any more may have what it granted before.
        begin = {"$setOnInsert": {"at": now}} if alive else {"$set": {"at": now}}
        born = await self._node("", begin)
        if gone := [one for one in before if one not in alive and one not in {"", node}]:
            await self._nodes.delete_many({"_id": {"$in": gone}, "at": {"$lt": now - timedelta(seconds=10 * lease_seconds)}})
        looked_for = self._short.find({"until": {"$gt": now}}).limit(1_000)
        short = [(one["_id"], (now - one["since"]).total_seconds()) async for one in looked_for]
        left = (born["at"] - now).total_seconds() + lease_seconds
        return Beat(node in alive, max(left, 0.0), short)

    async def _look(self, lease_seconds: float) -> tuple[set[str], bool]:
        """Return the nodes that are alive, and whether the store has known nodes for long enough."""
        now = await self._now()
        nodes = {one["_id"]: one async for one in self._nodes.find()}
        born = nodes[""]["at"] if "" in nodes else now
        return _alive(nodes, now), born <= now - timedelta(seconds=lease_seconds)

    @_told
    async def balance(self, node: str, lease_seconds: float, asks: Sequence[Ask]) -> list[Grant]:
        """As `Store.balance`."""
        found = {one["_id"]: one async for one in self._shares.find({"_id": {"$in": [ask.key for ask in asks]}})}
        # A node says that it is alive before it has anything: whoever has something was there before this is read.
        alive, settled = await self._look(lease_seconds)
        turns = asyncio.Semaphore(CONNECTIONS)

        async def one(ask: Ask) -> Grant:
            async with turns:
                return await self._balance(node, lease_seconds, ask, found.get(ask.key), (alive, settled))

        found_all = await asyncio.gather(*(one(ask) for ask in asks), return_exceptions=True)
        # None of them is under way any more: what they wrote is what the next question finds.
        for result in found_all:
            if isinstance(result, BaseException):
                raise result
        return [result for result in found_all if isinstance(result, Grant)]

    async def _since(self, key: str, now: datetime) -> datetime:
        """Return since when somebody looks for places of a key; now, where that was too long ago to go by."""
        found = await self._short.find_one({"_id": key})
        return found["since"] if found and found["since"] > now - timedelta(seconds=SHORT_SECONDS) else now

    async def _balance(self, node: str, lease: float, ask: Ask, known: dict[str, Any] | None, look: tuple[set[str], bool]) -> Grant:
        alive, settled = look
        for _ in range(TRIES):
            now = await self._now()
            since = await self._since(ask.key, now)
            held = [Held(one["node"], one["quota"], one["used"], one["told"] > since) for one in (known or {}).get("held", [])]
            others = [one for one in held if one.node != node and one.node in alive]
            grant = balance(others, node, ask, nodes=len(alive | {node}), settled=settled)
            names = {one.node for one in others}
            kept = [one for one in (known or {}).get("held", []) if one["node"] in names]
            if grant.quota:
                kept.append({"node": node, "quota": grant.quota, "used": min(ask.used, grant.quota), "told": now})
            if await self._replace(ask.key, known, kept):
                if ask.need > grant.quota:
                    told = {"since": since, "until": since + timedelta(seconds=2 * SHORT_SECONDS)}
                    await self._short.update_one({"_id": ask.key}, {"$set": told}, upsert=True)
                return grant
            await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311 - nobody gains by guessing it
            known = await self._shares.find_one({"_id": ask.key})
            alive, settled = await self._look(lease)
        # Others are faster; what is kept is what was granted before, and more is asked for again.
        return Grant(ask.keep, 1)

    async def _replace(self, key: str, known: dict[str, Any] | None, held: list[dict[str, Any]]) -> bool:
        """Write who has what of a key, unless another was faster."""
        # A document that somebody makes anew must not look like the one that was read.
        made = {"version": uuid.uuid4().hex, "held": held}
        if known is None:
            if not held:
                return True
            try:
                await self._shares.insert_one({"_id": key, **made})
            except DuplicateKeyError:
                return False
            return True
        same = {"_id": key, "version": known["version"]}
        if not held:
            return (await self._shares.delete_one(same)).deleted_count == 1
        return (await self._shares.update_one(same, {"$set": made})).matched_count == 1

    @_told
    async def leave(self, node: str) -> None:
        """As `Store.leave`."""
        await self._nodes.delete_one({"_id": node})

    @_told
    async def add(self, key: str, by: int, seconds: float) -> int:
        """As `Values.add`."""
        now = await self._now()
        until = now + timedelta(seconds=seconds)
        for _ in range(TRIES):
            live = {"_id": key, "until": {"$gt": now}}
            found = await self._counts.find_one_and_update(live, {"$inc": {"count": by}}, return_document=ReturnDocument.AFTER)
            if found:
                return int(found["count"])
            try:
                # One that is over begins anew; one that is there by now raises.
                over = {"_id": key, "until": {"$lte": now}}
                await self._counts.update_one(over, {"$set": {"count": by, "until": until}}, upsert=True)
            except DuplicateKeyError:
                continue
            return by
        raise StoreFailed(f"a counter was changed by others {TRIES} times while it was to be")

    @_told
    async def fetch(self, key: str) -> int:
        """As `Values.fetch`."""
        found = await self._counts.find_one({"_id": key, "until": {"$gt": await self._now()}})
        return int(found["count"]) if found else 0

    @_told
    async def put(self, group: str, members: Sequence[tuple[str, float]]) -> None:
        """As `Values.put`."""
        now = await self._now()
        for member, seconds in members:
            change = {"$set": {"group": group, "member": member, "until": now + timedelta(seconds=seconds)}}
            await self._sets.update_one({"_id": f"{group}:{member}"}, change, upsert=True)

    @_told
    async def discard(self, group: str, members: Sequence[str]) -> None:
        """As `Values.discard`."""
        await self._sets.delete_many({"_id": {"$in": [f"{group}:{member}" for member in members]}})

    @_told
    async def members(self, group: str) -> dict[str, float]:
        """As `Values.members`."""
        now = await self._now()
        found = self._sets.find({"group": group, "until": {"$gt": now}})
        return {one["member"]: (one["until"] - now).total_seconds() async for one in found}

    async def add_all(self, counts: Sequence[tuple[str, int, float]]) -> list[int]:
        """As `Store.add_all`."""
        turns = asyncio.Semaphore(CONNECTIONS)

        async def one(key: str, by: int, seconds: float) -> int:
            async with turns:
                return await self.add(key, by, seconds)

        return list(await asyncio.gather(*(one(*count) for count in counts)))

    @_told
    async def publish(self, group: str, name: str, text: str, seconds: float) -> None:
        """As `Store.publish`."""
        said = {"group": group, "name": name, "text": text, "until": await self._now() + timedelta(seconds=seconds)}
        await self._said.update_one({"_id": f"{group}:{name}"}, {"$set": said}, upsert=True)

    @_told
    async def published(self, group: str) -> dict[str, str]:
        """As `Store.published`."""
        found = self._said.find({"group": group, "until": {"$gt": await self._now()}})
        return {one["name"]: one["text"] async for one in found}

    @_told
    async def clear(self, keys: Sequence[str]) -> None:
        """As `Store.clear`."""
        await self._counts.delete_many({"_id": {"$in": list(keys)}})

    async def close(self) -> None:
        """As `Store.close`."""
        await self._client.close()
