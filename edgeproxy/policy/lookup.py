"""Number lookups as the file has them: the handlers that ask services before calls go on."""

import re
from collections.abc import Mapping, Sequence

from edgeproxy.config.lookup import Lookup
from edgeproxy.errors import CallEnded, LookupFailed
from edgeproxy.policy.call import Call, display_name_addr
from edgeproxy.policy.lookup_service import Service
from edgeproxy.policy.policy import Handler, Policy
from edgeproxy.policy.verdict import CONTINUE, Reject, Verdict
from edgeproxy.sip import Uri

SPARE_SECONDS = 0.5
"""What a handler may take beside the deadlines of its lookups."""
_RN = re.compile(r";rn=([^;]*)", re.IGNORECASE)
_NUMBER = re.compile(r"\+?[0-9A-Fa-f*#]{1,32}")
_ADDRESS = re.compile(r"<[^<>]*>")
_HIDDEN = {"id", "user", "header"}


def routing_number(uri: Uri) -> str | None:
    """Return `rn` of a URI (RFC 4694 section 4), empty for one without value; None where there is none."""
    found = _RN.search(f";{uri.user.partition(';')[2]}") if ";" in uri.user else None
    return found[1] if found else uri.parameter("rn")


def was_asked(uri: Uri) -> bool:
    """Whether somebody has looked the number up already (`npdi`, RFC 4694 section 4)."""
    return uri.parameter("npdi") is not None or "npdi" in uri.user.lower().split(";")[1:]


def with_routing_number(uri: Uri, value: str) -> str:
    """Return a URI that says that its number was looked up, and what came of it."""
    number = uri.user.partition(";")[0]
    text = str(uri)
    added = f"{';npdi'}{f';rn={value}' if value else ''}"
    place = text.index(":") + 1 + len(uri.user)
    if uri.scheme == "tel":
        return f"{text[:place]}{added}{text[place:]}" if number else text
    return f"{text[:place]}{added}{text[place:]}" if uri.user else text


class Lookups:
    """The services of one policy process, and the policy that asks them."""

    def __init__(self, terms: Mapping[str, Lookup], peers: Mapping[str, Sequence[str]], database: str) -> None:
        self.services = {name: Service(name, term, database) for name, term in terms.items()}
        self.policy = Policy()
        longest = 0.0
        for peer, names in peers.items():
            self.policy.on_request("INVITE", peer=peer)(self._handler([self.services[name] for name in names]))
            longest = max(longest, sum(terms[name].deadline_seconds for name in names))
        self.deadline_seconds = longest + SPARE_SECONDS

    @staticmethod
    def _handler(services: Sequence[Service]) -> Handler:
        async def look_up(call: Call) -> Verdict:
            for service in services:
                try:
                    value = await _ask(service, call)
                except LookupFailed as error:
                    call.note(f"lookup.{service.name}", f"failed: {error}")
                    if service.terms.refuse:
                        return Reject(service.terms.refuse.status_code, service.terms.refuse.reason_phrase)
                    continue
                if value is not None:
                    _use(service, call, value)
            return CONTINUE

        return look_up


async def _ask(service: Service, call: Call) -> str | None:
    """Return the value, empty where there is none; None where nothing was to be asked. Raise `LookupFailed`."""
    terms = service.terms
    uri = call.from_uri if terms.asks_caller else call.request_uri
    number = uri.user.partition(";")[0]
    if not terms.plus:
        number = number.removeprefix("+")
    if not number or (not terms.asks_caller and was_asked(uri)):
        return None
    if terms.to:
        return await service.watched(lambda: _redirected(terms, call))
    value = await service.value_of(number, call.trace_id)
    if call.ended_with is not None:
        raise CallEnded(call.ended_with)
    return value


async def _redirected(terms: Lookup, call: Call) -> str:
    failure = await call.attempt(
        terms.to, first_answer_seconds=terms.deadline_seconds, final_answer_seconds=max(1.0, terms.deadline_seconds)
    )
    call.forget_attempts()
    if failure is None:
        raise LookupFailed(f"{terms.to}: it answered the call itself")
    if failure.status_code == 404:
        return ""
    if failure.status_code != 302 or not failure.contacts:
        raise LookupFailed(f"{terms.to}: status {failure.status_code}")
    return routing_number(failure.contacts[0]) or ""


def _use(service: Service, call: Call, value: str) -> None:
    terms = service.terms
    if value and terms.result in {"rn", "routing_number"} and not _NUMBER.fullmatch(value):
        service.count("wrong")
        call.note(f"lookup.{service.name}", f"no number: {value}")
        return
    call.note(f"lookup.{service.name}", value)
    if terms.result == "rn":
        call.set_request_uri(with_routing_number(call.request_uri, value))
    elif terms.result == "routing_number" and value:
        call.set_routing_number(value)
    elif terms.result == "caller_name" and value:
        _name(call, value, terms)


def _name(call: Call, value: str, terms: Lookup) -> None:
    wishes = {wish.strip().lower() for line in call.headers("Privacy") for wish in re.split("[;,]", line)}
    name = "".join(character for character in value if character.isprintable())[: terms.longest_name].strip()
    if wishes & _HIDDEN or not name:
        return
    if "from" in terms.into:
        call.set_from(display_name=name)
    lines = call.headers("P-Asserted-Identity")
    if "p_asserted_identity" in terms.into and lines:
        # Any display name goes with what is not in angle brackets.
        uris = [uri for line in lines for uri in _ADDRESS.findall(line) or [f"<{line.strip()}>"]]
        call.set_header("P-Asserted-Identity", ", ".join(display_name_addr(name, uri[1:-1]) for uri in uris))
