"""Number lookups as the file has them: the handlers that ask services before calls go on."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from urllib.parse import unquote

from edgeproxy.config.lookup import Lookup
from edgeproxy.errors import CallEnded, LookupFailed
from edgeproxy.policy.call import Call, display_name_addr
from edgeproxy.policy.lookup_service import Service
from edgeproxy.policy.name_addr import NameAddr, read_name_addrs
from edgeproxy.policy.policy import Hook, Policy
from edgeproxy.policy.verdict import CONTINUE, Reject, Verdict
from edgeproxy.sip import Uri

SPARE_SECONDS = 0.5
"""What a handler may take beside the deadlines of its lookups."""
_TELEPHONE = re.compile(r"\+?[0-9*#]{1,32}")
_SEPARATORS = re.compile(r"[-.() ]")
_HIDDEN = {"id", "user", "header"}
_PORTED = {"rn", "rn-context", "npdi"}


def _parts(uri: Uri) -> tuple[str, list[str]]:
    """Return the number of a URI and the parameters that belong to it."""
    number, *within = uri.user.split(";")
    if uri.scheme != "tel":
        return number, within
    return number, str(uri).split(":", 1)[1].split(";")[1:]


def _name_of(parameter: str) -> str:
    return parameter.partition("=")[0].strip().lower()


def routing_number(uri: Uri) -> str | None:
    """Return `rn` of a URI (RFC 4694 section 4), empty for one without value; None where there is none."""
    found = [parameter.partition("=")[2] for parameter in _parts(uri)[1] if _name_of(parameter) == "rn"]
    return found[0] if found else uri.parameter("rn")


def was_asked(uri: Uri) -> bool:
    """Whether somebody has looked the number up already (`npdi`, RFC 4694 section 4)."""
    return uri.parameter("npdi") is not None or any(_name_of(parameter) == "npdi" for parameter in _parts(uri)[1])


def with_routing_number(uri: Uri, value: str) -> str:
    """Return a URI that says that its number was looked up, and what came of it; what it said of that before is gone."""
    number, parameters = _parts(uri)
    if not number:
        return str(uri)
    kept = [parameter for parameter in parameters if _name_of(parameter) not in _PORTED]
    made = ";".join([number, "npdi", *([f"rn={value}"] if value else []), *kept])
    scheme, _, rest = str(uri).partition(":")
    return f"{scheme}:{made}" if uri.scheme == "tel" else f"{scheme}:{made}{rest[len(uri.user) :]}"


class Lookups:
    """The services of one policy process, and the policy that asks them."""

    def __init__(self, terms: Mapping[str, Lookup], peers: Mapping[str, Sequence[str]], trusted: Collection[str], database: str) -> None:
        self.services = {name: Service(name, term, database) for name, term in terms.items()}
        self.policy = Policy()
        self._trusted = frozenset(trusted)
        self._of_peer = {peer: [self.services[name] for name in names] for peer, names in peers.items()}
        self.policy.hooks.append(Hook("request", self._look_up, ("INVITE",), tuple(peers), takes_options=False, exact=True))
        self.deadline_seconds = SPARE_SECONDS + max(
            sum(service.terms.longest_seconds for service in found) for found in self._of_peer.values()
        )

    async def _look_up(self, call: Call) -> Verdict:
        for service in self._of_peer.get(call.peer, ()):
            try:
                value = await _ask(service, call)
            except LookupFailed as error:
                call.note(f"lookup.{service.name}", f"failed: {error}")
                if service.terms.refuse:
                    return Reject(service.terms.refuse.status_code, service.terms.refuse.reason_phrase)
                continue
            if value is not None:
                _use(service, call, value, trusted=call.peer in self._trusted)
        return CONTINUE


async def _ask(service: Service, call: Call) -> str | None:
    """Return the value, empty where there is none; None where nothing was to be asked. Raise `LookupFailed`."""
    terms = service.terms
    try:
        uri = call.from_uri if terms.asks_caller else call.request_uri
    except ValueError:
        # Of no form that is known: there is no number in it.
        return None
    number = _SEPARATORS.sub("", unquote(_parts(uri)[0]))
    if not _TELEPHONE.fullmatch(number) or (not terms.asks_caller and was_asked(uri)):
        return None
    if terms.to:
        return await service.watched(lambda: _redirected(terms, call))
    value = await service.value_of(number if terms.plus else number.removeprefix("+"), call.trace_id)
    if call.ended_with is not None:
        raise CallEnded(call.ended_with)
    return value


async def _redirected(terms: Lookup, call: Call) -> str:
    seconds = terms.deadline_seconds
    failure = await call.attempt(terms.to, service=True, first_answer_seconds=seconds, final_answer_seconds=seconds)
    call.forget_attempts()
    if failure is None:
        raise LookupFailed("it answered the call itself")
    if failure.status_code == 404:
        return ""
    if failure.status_code == 408 and not failure.text:
        raise LookupFailed(f"no answer within {seconds} s")
    if failure.status_code != 302 or not failure.contacts:
        raise LookupFailed(f"status {failure.status_code}")
    try:
        contacts = read_name_addrs(", ".join(failure.headers("Contact")))
    except ValueError as error:
        raise LookupFailed(f"Contact: {error}") from error
    # The best that says anything of the number (RFC 3261 section 20.10, RFC 4694 section 4); what is of no form we know says nothing.
    for contact in sorted(contacts, key=_preference, reverse=True):
        with suppress(ValueError):
            if number := routing_number(Uri(contact.uri)):
                return number
    return ""


def _preference(contact: NameAddr) -> float:
    try:
        return float(contact.parameters.get("q", "1"))
    except ValueError:
        return 0.0


def _use(service: Service, call: Call, value: str, *, trusted: bool) -> None:
    terms = service.terms
    call.note(f"lookup.{service.name}", value)
    if terms.result == "rn":
        call.set_request_uri(with_routing_number(call.request_uri, value))
    if terms.result in {"rn", "routing_number"} and value:
        call.set_routing_number(value)
    elif terms.result == "caller_name" and value:
        _name(call, value, terms, trusted=trusted)


def _name(call: Call, value: str, terms: Lookup, *, trusted: bool) -> None:
    wishes = {wish.strip().lower() for line in call.headers("Privacy") for wish in re.split("[;,]", line)}
    name = "".join(character for character in value if character.isprintable())[: terms.longest_name].strip()
    if wishes & _HIDDEN or not name:
        return
    if "from" in terms.into:
        call.set_from(display_name=name)
    # What somebody says of itself who may not is left to be taken out (RFC 3325 section 5).
    lines = call.headers("P-Asserted-Identity") if trusted and "p_asserted_identity" in terms.into else []
    try:
        uris = [Uri(asserted.uri) for line in lines for asserted in read_name_addrs(line)]
    except ValueError as error:
        call.note(f"lookup.{terms.result}", f"P-Asserted-Identity stays: {error}")
        return
    if uris:
        call.set_header("P-Asserted-Identity", ", ".join(display_name_addr(name, uri) for uri in uris))
