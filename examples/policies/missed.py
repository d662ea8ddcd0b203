"""Whoever missed a call gets a message that tells of it.

To try it: edgeproxy run examples/policies/missed.toml
"""

from typing import Any

from edgeproxy.policy import Policy

policy = Policy()


@policy.on_final()
async def tell(record: dict[str, Any]) -> None:
    """Send a MESSAGE to the callee of a call that the caller gave up, or that nobody answered."""
    if record["outcome"] not in {"cancelled", "failed"} or not record["attempts"]:
        return
    await policy.send_request(
        "MESSAGE",
        record["request_uri"],
        from_uri=record["from_uri"],
        headers={"Content-Type": "text/plain"},
        body=f"You missed a call at {record['started_at']}",
        peer="core",
        deadline_seconds=5,
    )
