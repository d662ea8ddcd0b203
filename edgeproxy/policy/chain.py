"""Several modules in the order of the file: each may decide, or leave it to the next."""

import asyncio
import inspect
from collections.abc import Coroutine, Mapping, Sequence
from types import CoroutineType
from typing import Any

import msgspec

from edgeproxy.errors import PolicyError
from edgeproxy.policy.call import Call
from edgeproxy.policy.parts import ChosenRule
from edgeproxy.policy.policy import Hook, Policy
from edgeproxy.policy.step import start
from edgeproxy.policy.verdict import CONTINUE, Continue, Verdict

Step = tuple[Hook, Any]


class Chain:
    """The handlers of all modules, and what each peer of the file is called."""

    def __init__(self, modules: Sequence[tuple[Policy, Any]], kinds: Mapping[str, str], statuses: Sequence[int] = ()) -> None:
        # Each module has options of its own, if only an object that says so.
        self._statuses = {id(options): status for (_, options), status in zip(modules, statuses, strict=False)}
        self._steps = [(hook, options) for policy, options in modules for hook in policy.hooks]
        self._names = {name: frozenset((name, kind)) for name, kind in kinds.items()}
        self._found: dict[tuple[str, str, str], list[Step]] = {}
        self.policies = [policy for policy, _ in modules]

    def handlers(self, hook: str, method: str, peer: str) -> list[Step]:
        """Return who is asked about a request of `method` from `peer`, in order: of each module its first that fits."""
        names = self._names.get(peer, frozenset((peer,)))
        found, seen = [], set()
        for step in self._steps:
            own = frozenset((peer,)) if step[0].exact else names
            if step[0].name == hook and step[0].fits(method, own) and id(step[1]) not in seen:
                found.append(step)
                seen.add(id(step[1]))
        return found

    def failed_status(self, call: Call) -> int:
        """Return what the sender gets where the module fails that was asked last; 0 for what the first one says."""
        return self._statuses.get(id(getattr(call, "asked", None)), 0)

    def event_handlers(self, name: str) -> list[Step]:
        """Return who wants to be told of an event."""
        return [step for step in self._steps if step[0].name == "event" and name in step[0].methods]

    def start(self, call: Call, loop: asyncio.AbstractEventLoop, event: str = "request") -> tuple[Verdict, asyncio.Task[object] | None]:
        """Ask the handlers: return the verdict, or a task where one of them waits, whose result is to be `checked`.

        Raise what they raise.
        """
        request = call.request
        # A rule names its handler, whatever the method.
        key = (event, call.handler if event == "route" and isinstance(call, ChosenRule) else request.method, request.peer)
        steps = self._found.get(key)
        if steps is None:
            steps = self.handlers(*key)
            # Whoever sends unknown methods must not make us remember each of them.
            if len(self._found) < 1_024:
                self._found[key] = steps
        for index, (hook, options) in enumerate(steps):
            if index:
                call.asked = options
            made = hook.handler(call, options) if hook.takes_options else hook.handler(call)
            # By exact type first, then verdicts: to ask whether something is a coroutine of any kind costs more than the rest of this loop.
            if type(made) is not CoroutineType and isinstance(made, Verdict):
                if not isinstance(made, Continue):
                    return made, None
            # Of any kind: those of compiled modules are of a type of their own.
            elif type(made) is CoroutineType or isinstance(made, Coroutine):
                if index + 1 < len(steps):
                    made = _rest(made, call, steps[index + 1 :])
                value, task = start(made, loop, call.why_ended)
                if task:
                    return CONTINUE, task
                return value if isinstance(value, Verdict) else checked(value, hook.handler), None
            else:
                checked(made, hook.handler)
        return CONTINUE, None


async def _rest(first: Any, call: Call, steps: Sequence[Step]) -> Verdict:
    """Await the first handler, then ask those behind it."""
    verdict = checked(await first, first)
    for hook, options in steps:
        if not isinstance(verdict, Continue):
            return verdict
        call.asked = options
        made = hook.handler(call, options) if hook.takes_options else hook.handler(call)
        verdict = checked(await made if inspect.isawaitable(made) else made, hook.handler)
    return verdict


def checked(made: Any, handler: object) -> Verdict:
    """Return a handler's verdict; None means that it leaves the decision to others. Raise `PolicyError` for nonsense, with the handler's name."""
    if made is None:
        return CONTINUE
    if isinstance(made, Verdict):
        return made
    name = getattr(handler, "__qualname__", "handler")
    raise PolicyError(f"{name} returned {type(made).__name__}, expected a verdict")


def convert_options(policy: Policy, options: Mapping[str, Any], module: str) -> Any:
    """Return the options of a module as it declared them; raise `PolicyError` where they do not fit."""
    if policy.options_type is None:
        if options:
            raise PolicyError(f"{module} takes no options, got: {', '.join(sorted(options))}")
        # An object of its own: the chain tells modules apart by it.
        return object()
    try:
        return msgspec.convert(options, policy.options_type, strict=True)
    except msgspec.ValidationError as error:
        raise PolicyError(f"options of {module}: {error}") from error
