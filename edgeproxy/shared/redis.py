"""Redis and Valkey: each operation is one script, run on the server's clock."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from edgeproxy.shared.store import CONNECTIONS, Ask, Beat, Grant, told_by

_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
_BEAT = f"""{_NOW}
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
local known = score and tonumber(score) > now and 1 or 0
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - 2000)
local short = redis.call('ZRANGE', KEYS[1], 0, 999, 'WITHSCORES')
for at = 2, #short, 2 do short[at] = now - short[at] end
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('SET', KEYS[3], now) end
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
redis.call('SETNX', KEYS[3], now)
local left = tonumber(redis.call('GET', KEYS[3])) + ARGV[2] - now
return {{known, math.max(left, 0), short}}"""
_ADD = """local found = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return found"""
_PUT = f"""{_NOW}
for at = 1, #ARGV, 2 do redis.call('ZADD', KEYS[1], now + ARGV[at + 1], ARGV[at]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if last[2] then redis.call('PEXPIREAT', KEYS[1], string.format('%d', last[2])) end"""
_MEMBERS = f"""{_NOW}
local found = redis.call('ZRANGEBYSCORE', KEYS[1], now + 1, '+inf', 'WITHSCORES')
for at = 2, #found, 2 do found[at] = found[at] - now end
return found"""
_told = told_by(RedisError, OSError)


class RedisStore:
    """One server, or whatever stands for it behind one address; all keys have one hash tag, so that a cluster keeps them together."""

    def __init__(self, url: str, prefix: str, deadline_seconds: float) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            socket_timeout=deadline_seconds,
            socket_connect_timeout=deadline_seconds,
            decode_responses=True,
            protocol=2,
            max_connections=CONNECTIONS,
            timeout=deadline_seconds,
        )
        self._client = Redis.from_pool(pool)
        self._prefix = f"{{{prefix}}}:"
        script = self._client.register_script
        self._beat, self._add, self._put, self._members = (script(text) for text in (_BEAT, _ADD, _PUT, _MEMBERS))
        self._balance = script(files("edgeproxy.shared").joinpath("redis.lua").read_text())

    def _key(self, kind: str, name: str = "") -> str:
        return f"{self._prefix}{kind}:{name}" if name else f"{self._prefix}{kind}"

    @property
    def _common(self) -> list[str]:
        return [self._key("short"), self._key("nodes"), self._key("born")]

    @_told
    async def open(self) -> None:
        """As `Store.open`."""
        await asyncio.gather(*(self._client.ping() for _ in range(CONNECTIONS)))
        for script in (self._beat, self._balance, self._add, self._put, self._members):
            await self._client.script_load(script.script)

    @_told
    async def beat(self, node: str, lease_seconds: float) -> Beat:
        """As `Store.beat`."""
        known, left, short = await self._beat(self._common, [node, round(lease_seconds * 1_000)])
        own = len(self._key("share")) + 1
        ages = zip(short[::2], short[1::2], strict=True)
        return Beat(bool(known), int(left) / 1_000, [(name[own:], int(age) / 1_000) for name, age in ages])

    @_told
    async def balance(self, node: str, lease_seconds: float, asks: Sequence[Ask]) -> list[Grant]:
        """As `Store.balance`."""
        keys = [*self._common, *(self._key("share", ask.key) for ask in asks)]
        numbers = [number for ask in asks for number in (ask.keep, ask.need, ask.used, ask.extra, ask.most)]
        found = await self._balance(keys, [node, round(lease_seconds * 1_000), *numbers])
        return [Grant(int(quota), int(spare)) for quota, spare in zip(found[::2], found[1::2], strict=True)]

    @_told
    async def leave(self, node: str) -> None:
        """As `Store.leave`."""
        await self._client.zrem(self._key("nodes"), node)

    @_told
    async def add(self, key: str, by: int, seconds: float) -> int:
        """As `Values.add`."""
        return int(await self._add([self._key("count", key)], [by, max(round(seconds * 1_000), 1)]))

    @_told
    async def fetch(self, key: str) -> int:
        """As `Values.fetch`."""
        return int(await self._client.get(self._key("count", key)) or 0)

    @_told
    async def put(self, group: str, members: Sequence[tuple[str, float]]) -> None:
        """As `Values.put`."""
        if members:
            await self._put([self._key("set", group)], [part for member, seconds in members for part in (member, round(seconds * 1_000))])

    @_told
    async def discard(self, group: str, members: Sequence[str]) -> None:
        """As `Values.discard`."""
        if members:
            await self._client.zrem(self._key("set", group), *members)

    @_told
    async def members(self, group: str) -> dict[str, float]:
        """As `Values.members`."""
        found = await self._members([self._key("set", group)])
        return {member: int(left) / 1_000 for member, left in zip(found[::2], found[1::2], strict=True)}

    @_told
    async def add_all(self, counts: Sequence[tuple[str, int, float]]) -> list[int]:
        """As `Store.add_all`."""
        async with self._client.pipeline(transaction=False) as pipe:
            for key, by, seconds in counts:
                await self._add([self._key("count", key)], [by, max(round(seconds * 1_000), 1)], client=pipe)
            return [int(count) for count in await pipe.execute()]

    @_told
    async def publish(self, group: str, name: str, text: str, seconds: float) -> None:
        """As `Store.publish`."""
        await self._client.set(self._key("said", f"{group}:{name}"), text, px=round(seconds * 1_000))
        await self.put(f"said:{group}", [(name, seconds)])

    @_told
    async def published(self, group: str) -> dict[str, str]:
        """As `Store.published`."""
        names = list(await self.members(f"said:{group}"))
        texts = await self._client.mget([self._key("said", f"{group}:{name}") for name in names]) if names else []
        return {name: str(text) for name, text in zip(names, texts, strict=True) if text is not None}

    @_told
    async def clear(self, keys: Sequence[str]) -> None:
        """As `Store.clear`."""
        if keys:
            await self._client.delete(*(self._key("count", key) for key in keys))

    async def close(self) -> None:
        """As `Store.close`."""
        await self._client.aclose()
