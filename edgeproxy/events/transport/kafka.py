"""Kafka: each event is a record of a topic, keyed by its name, and acknowledged by all replicas."""

import logging
import ssl

from aiokafka import AIOKafkaProducer

from edgeproxy.events.sink import Sink

# What fails is told once, by the delivery; the library would complain of each try, and not in the form of our log.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Producer:
    """One producer."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    async def send(self, body: bytes, name: str, values: dict[str, int | str]) -> None:
        """Send an event; raise `aiokafka.errors.KafkaError` where the brokers do not take it."""
        await self._producer.send_and_wait(self._topic, body, key=name.encode())

    async def close(self) -> None:
        """Send what waits, and close."""
        await self._producer.stop()


async def connect(sink: Sink) -> Producer:
    """Return the way to a sink; raise where no broker is there. Several are named with commas between."""
    secure = sink.place.scheme == "kafkas"
    producer = AIOKafkaProducer(
        bootstrap_servers=sink.place.netloc.split(","),
        security_protocol="SSL" if secure else "PLAINTEXT",
        ssl_context=ssl.create_default_context() if secure else None,
        request_timeout_ms=round(sink.timeout_seconds * 1_000),
        acks="all",
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return Producer(producer, sink.place.path.strip("/"))
