"""A message as somebody may see it who is to know of no one: without users, display names, and what else tells who somebody is.

What is masked may come from anybody: every character is looked at a few times at most, however the text is made.
"""

import re

_HEAD_END = re.compile(r"\r?\n\r?\n")
_FOLDED = re.compile(r"\r?\n[ \t]+(?=\S)")
_LINE_END = re.compile(r"(\r?\n)")
_SCHEME = re.compile(r"\b(sips?|tel|urn):", re.IGNORECASE)
_URI_END = re.compile(r'[>\s"<]')
_HOST_END = re.compile(r"[;,?]")
# Possessive: what was taken is never looked at again.
_PART = re.compile(r'"(?:[^"\\]|\\.)*+"?|<[^>]*+>?|,|[^",<]++', re.DOTALL)
_NAME_OF_ACCOUNT = re.compile(r'(\busername\*?\s*=\s*)("(?:[^"\\]|\\.)*+"?|[^\s,"]++)', re.IGNORECASE)
_SHOWN = frozenset(
    [
        "accept",
        "accept-contact",
        "accept-encoding",
        "accept-language",
        "alert-info",
        "allow",
        "allow-events",
        "answer-mode",
        "authentication-info",
        "authorization",
        "call-id",
        "call-info",
        "contact",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "cseq",
        "date",
        "diversion",
        "error-info",
        "event",
        "expires",
        "feature-caps",
        "flow-timer",
        "from",
        "geolocation-routing",
        "history-info",
        "in-reply-to",
        "info-package",
        "join",
        "max-breadth",
        "max-forwards",
        "mime-version",
        "min-expires",
        "min-se",
        "p-access-network-info",
        "p-asserted-identity",
        "p-associated-uri",
        "p-called-party-id",
        "p-early-media",
        "p-preferred-identity",
        "path",
        "priority",
        "privacy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-require",
        "rack",
        "reason",
        "record-route",
        "recv-info",
        "refer-sub",
        "refer-to",
        "referred-by",
        "reject-contact",
        "remote-party-id",
        "replaces",
        "reply-to",
        "request-disposition",
        "require",
        "resource-priority",
        "retry-after",
        "route",
        "rseq",
        "security-client",
        "security-server",
        "security-verify",
        "server",
        "service-route",
        "session-expires",
        "session-id",
        "sip-etag",
        "sip-if-match",
        "subscription-state",
        "supported",
        "target-dialog",
        "timestamp",
        "to",
        "unsupported",
        "user-agent",
        "via",
        "warning",
        "www-authenticate",
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "i",
        "j",
        "k",
        "l",
        "m",
        "o",
        "r",
        "t",
        "u",
        "v",
        "x",
    ]
)
"""Header fields that are shown without users and names (RFC 3261 section 20 and the IANA registry). Any other may say who somebody is anywhere in it:
free text, numbers in the tokens of RFC 8224, what vendors and networks add."""
# RFC 8866: who offers a session, what it is called, whom to ask about it.
_SDP = re.compile(r"^(o=)\S+|^([siep]=)(?!-\r?$)[^\r\n]+", re.MULTILINE)
_DECIDED = re.compile(r"^(policy: route )\S+")


def masked(text: str) -> str:
    """Return a message, its first line, or a decision, without whoever is named in it; addresses stay, and so do bodies but URIs and SDP."""
    text = text.lstrip("\r\n")
    end = _HEAD_END.search(text)
    head, rest = (text[: end.start()], text[end.start() :]) if end else (text, "")
    is_message = bool(end) or "SIP/2.0" in text.split("\n", 1)[0]
    parts = _LINE_END.split(_FOLDED.sub(" ", head) if is_message else head)
    shown = "".join(part if number % 2 else _line(part, is_message) for number, part in enumerate(parts))
    return shown + _SDP.sub(lambda line: (line[1] or line[2]) + "***", _without_users(rest))


def _line(line: str, is_message: bool) -> str:
    name, colon, value = line.partition(":")
    if not colon or " " in name.strip():
        return _without_users(line)
    kind = name.strip().lower()
    if is_message and kind not in _SHOWN:
        return f"{name}: ***"
    if kind.endswith("authorization"):
        value = _NAME_OF_ACCOUNT.sub(r'\1"***"', value)
    if "<" in value:
        value = _without_names(value)
    return _DECIDED.sub(r"\1***", name + colon + _without_users(value))


def _without_names(value: str) -> str:
    """Return values of a header field without what stands in front of `<`."""
    shown: list[str] = []
    before: list[str] = []
    named = False
    for part in _PART.findall(value):
        if part == ",":
            shown += [*before, part]
            before, named = [], False
        elif part.startswith("<") and not named:
            name = "".join(before)
            quoted = '"***" ' if '"' in name else "*** "
            shown.append(name if not name.strip() else name[: len(name) - len(name.lstrip())] + quoted)
            shown.append(part)
            before, named = [], True
        else:
            before.append(part)
    return "".join([*shown, *before])


def _without_users(text: str) -> str:
    """Return a text without users of URIs, without header fields that these bring, and without numbers of `tel` and `urn`."""
    shown: list[str] = []
    place = end = 0
    for found in _SCHEME.finditer(text):
        start = found.end()
        if start < place:
            # Within what is masked already.
            continue
        if start > end:
            ends = _URI_END.search(text, start)
            end = ends.start() if ends else len(text)
        shown += [text[place:start], "***"]
        at = text.find("@", start, end) if found[1].lower().startswith("sip") else end
        if at < 0:
            host = _HOST_END.search(text, start, end)
            at = host.start() if host else end
        place = at
        if (asks := text.find("?", place, end)) >= 0:
            shown += [text[place:asks], "?***"]
            place = end
    shown.append(text[place:])
    return "".join(shown)
