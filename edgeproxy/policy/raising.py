"""Events of policies' own."""

from edgeproxy.policy.call import Call


async def raise_event(name: str, /, **parameters: int | str) -> int:
    """Tell sinks, the log, handlers and followers of an event whose name begins with `X_`; return how many took it.

    At most 32 parameters: integers, and texts of at most 4,096 characters. Raise `ValueError` for what is no such event, `LookupFailed`
    where the server does not take it within two seconds.
    """
    return await Call.values.raise_event(name, parameters)
