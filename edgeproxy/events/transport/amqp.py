"""RabbitMQ (AMQP 0-9-1): each event is published, and confirmed by the broker. Exchanges and queues are not declared."""

import logging

import aio_pika

from edgeproxy.events.sink import Sink

# What fails is told once, by the delivery; the library would complain of each try, and not in the form of our log.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)
logging.getLogger("aio_pika").setLevel(logging.CRITICAL)


class Publisher:
    """A channel of one connection."""

    def __init__(self, connection: aio_pika.abc.AbstractConnection, exchange: aio_pika.abc.AbstractExchange, key: str) -> None:
        self._connection = connection
        self._exchange = exchange
        self._key = key

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Publish an event; raise `aio_pika.exceptions.AMQPError` where the broker does not take it."""
        mode = aio_pika.DeliveryMode.PERSISTENT
        message = aio_pika.Message(body, content_type="application/json", type=name, delivery_mode=mode)
        await self._exchange.publish(message, self._key or name)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


async def connect(sink: Sink) -> Publisher:
    """Return the way to a sink: routed by `routing_key`, else by the event's name; raise where the broker is not there."""
    connection = await aio_pika.connect(sink.to.partition("?")[0], timeout=sink.timeout_seconds)
    try:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        name = sink.option("exchange")
        exchange = await channel.get_exchange(name) if name else channel.default_exchange
    except BaseException:
        await connection.close()
        raise
    return Publisher(connection, exchange, sink.option("routing_key"))
