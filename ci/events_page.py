"""Prints docs/events.md from the docstrings of the events."""

import ast
import inspect
import sys
from pathlib import Path

import msgspec

from edgeproxy.events import catalogue
from edgeproxy.events.event import Event
from edgeproxy.events.sink import Told

HEAD = """# Events

Facts for whoever listens: the log (`events.log`), handlers of policies (`@policy.on_event`), and `edgeproxy events follow`. An event that nobody listens to is not even built. Producers never wait:
workers put events into a bounded queue (`tuning.event_queue`), and a listener that is slow loses some, which is counted. Names and parameters are those that operators of OpenSIPS know;
values come from the network and are not to be trusted as they stand. `edgeproxy events raise NAME KEY=VALUE` tells an event as if it had happened. Events of an operator's own
begin with `X_`; `follow` shows them where they are named.

## Outwards

`[events.sink.NAME]` tells somebody outside: webhooks, datagrams, files, RabbitMQ, NATS, Kafka, Redis streams, and programs; `edgeproxy events subscribe` does so for a while. Each sink has a queue of its
own, retries with pauses from a quarter of a second on, and drops what finds no room, which is counted (`sink_dropped`); nobody else waits for it. RabbitMQ, NATS, Kafka and Redis need the extras `amqp`,
`nats`, `kafka` and `redis`. What cannot be told within `tries` is given up (`sink_failed`), so that a sink hears of an event at most `tries` times and mostly once. Each event is one JSON object:

```json
SCHEMA
```

Our tests run against real servers of all of these but Kafka, which Debian has not: there against a server of our own that speaks just enough of its protocol.

## Events

| event | when | parameters |
|---|---|---|"""


def attributes(kind: type[Event]) -> dict[str, str]:
    """Return what stands below each field, those of its bases among them."""
    base = kind.__bases__[0]
    found: dict[str, str] = {} if base in (Event, object) else attributes(base)
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            found[name] = ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = str(node.value.value)
    return found


def main() -> None:
    """Print the page, or write it to the file named."""
    schema = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Told)), indent=2).decode()
    lines = [HEAD.replace("SCHEMA", schema)]
    for kind in catalogue.KINDS:
        told = attributes(kind)
        parameters = "; ".join(
            f"`{name}`" + (f" {told[name][0].lower()}{told[name][1:].rstrip('.')}" if told[name] else "")
            for name in catalogue.parameter_names(kind)
        )
        lines.append(f"| `{kind.name}` | {(kind.__doc__ or '').rstrip('.')} | {parameters} |")
    page = "\n".join([*lines, ""])
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page)
    else:
        sys.stdout.write(page)


if __name__ == "__main__":
    main()
