"""Imports policy modules; what is wrong with one is told with file, line and reason."""

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy.errors import PolicyError
from edgeproxy.policy.chain import convert_options
from edgeproxy.policy.compiled import load_compiled
from edgeproxy.policy.dispatch import described
from edgeproxy.policy.policy import Policy


class ModuleSpec(msgspec.Struct, frozen=True):
    """One module as the file names it."""

    module: str
    options: dict[str, Any] = {}


def load(specs: Sequence[ModuleSpec], directory: Path, cache: Path | None = None, places: Sequence[str] = ()) -> list[tuple[Policy, Any]]:
    """Import modules by name, those beside the file first, compiled where the cache has them; return each policy with its options.

    `places` are file and line that name each, for faults.

    Raise `PolicyError` with one line for each module that does not import, declares no policy, or refuses its options.
    """
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    loaded, faults = [], []
    for number, spec in enumerate(specs):
        try:
            loaded.append(_load_one(spec, directory, cache, f"{places[number]}: " if number < len(places) else ""))
        except PolicyError as error:
            faults.append(str(error))
    if faults:
        raise PolicyError("\n".join(faults))
    return loaded


def _load_one(spec: ModuleSpec, directory: Path, cache: Path | None, named_at: str) -> tuple[Policy, Any]:
    try:
        module = load_compiled(spec.module, directory, cache) or importlib.import_module(spec.module)
    except ModuleNotFoundError as error:
        if error.name and (spec.module == error.name or spec.module.startswith(f"{error.name}.")):
            raise PolicyError(f"{named_at}policy module {spec.module}: no such module beside the file or on Python's path") from error
        raise PolicyError(f"{_place(error, spec.module)}: {described(error)['error']}") from error
    except BaseException as error:  # A module may raise anything, SystemExit included.
        raise PolicyError(f"{_place(error, spec.module)}: {described(error)['error']}") from error
    policy = getattr(module, "policy", None)
    if not isinstance(policy, Policy):
        raise PolicyError(f"{module.__file__}: expected `policy = Policy()` in module {spec.module}")
    if not policy.hooks:
        raise PolicyError(f"{module.__file__}: module {spec.module} has no handler")
    try:
        return policy, convert_options(policy, spec.options, spec.module)
    except PolicyError as error:
        raise PolicyError(f"{named_at}{error}") from error


def _place(error: BaseException, module: str) -> str:
    """Return file and line of what went wrong: of the syntax error, else of the last frame outside of the import system."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    package = str(Path(__file__).parent)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(package)
    ]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else module


def _declared(handler: object) -> str:
    """Return file and line of a handler, where it has such."""
    code = getattr(handler, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}: " if code else ""


def event_names(modules: Sequence[tuple[Policy, Any]]) -> list[str]:
    """Return the events that handlers want to be told of."""
    return sorted({name for policy, _ in modules for hook in policy.hooks if hook.name == "event" for name in hook.methods})


def hooks(
    modules: Sequence[tuple[Policy, Any]], deadlines: Sequence[float], statuses: Sequence[int], kinds: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return what the native side must know: who wants to be asked about what. Raise `PolicyError` for peers that nobody has."""
    found = []
    for (policy, _), deadline, status in zip(modules, deadlines, statuses, strict=True):
        for hook in policy.hooks:
            if hook.name == "event":
                continue
            known = {*kinds, *kinds.values()}
            if unknown := [peer for peer in hook.peers if peer not in known]:
                raise PolicyError(
                    f"{_declared(hook.handler)}{getattr(hook.handler, '__qualname__', 'handler')}: no peer or kind of peer {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
                )
            peers = [
                name for name, kind in kinds.items() if not hook.peers or name in hook.peers or (kind in hook.peers and not hook.exact)
            ]
            found.append(
                {
                    "hook": hook.name,
                    "methods": list(hook.methods),
                    "peers": peers if hook.peers else [],
                    "deadline_milliseconds": max(1, round(deadline * 1_000)),
                    "status_code": status,
                }
            )
    return found
