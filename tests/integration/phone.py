"""A phone of a few lines that registers with digest, for what SIPp cannot be made to do."""

import hashlib
import re
import secrets
from typing import Any

from tests.integration.agent import Agent, values


def digest(name: str, text: str) -> str:
    """Return the hash of `text` by a digest algorithm of RFC 8760."""
    algorithm = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}[name]
    return hashlib.new(algorithm, text.encode()).hexdigest()


def authorization(challenge: str, method: str, uri: str, account: tuple[str, str], count: int = 1) -> str:
    """Return the credentials of an account, user and password, that answer a challenge."""
    user, password = account
    known = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))
    algorithm = known.get("algorithm", "MD5")
    ha1 = digest(algorithm, f"{user}:{known['realm']}:{password}")
    ha2 = digest(algorithm, f"{method}:{uri}")
    response = digest(algorithm, f"{ha1}:{known['nonce']}:{count:08x}:cn:auth:{ha2}")
    return (
        f'Digest username="{user}", realm="{known["realm"]}", nonce="{known["nonce"]}", uri="{uri}", response="{response}", '
        f'algorithm={algorithm}, cnonce="cn", qop=auth, nc={count:08x}'
    )


class Phone(Agent):
    """A user agent of `user` at `domain`, behind the proxy at `port`."""

    def __init__(
        self,
        user: str,
        proxy_port: int,
        *,
        domain: str = "edge.example",
        host: str = "127.0.0.1",
        port: int = 0,
        proxy: str = "127.0.0.1",
    ) -> None:
        super().__init__(host, port)
        self.user, self.domain, self.proxy_port, self.host, self.proxy = user, domain, proxy_port, host, proxy
        self.account = ""
        self.call_id, self.cseq = secrets.token_hex(6), 0
        self.contact = f"<sip:{user}@{host}:{self.port}>"

    def request(self, method: str, uri: str, *lines: str, to: str = "", call_id: str = "", body: str = "") -> str:
        """Return a request of this phone."""
        self.cseq += 1
        me = f"sip:{self.user}@{self.domain}"
        head = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.host}:{self.port};rport;branch=z9hG4bK{secrets.token_hex(8)}",
            "Max-Forwards: 70",
            f"From: <{me}>;tag={self.call_id}",
            f"To: <{to or me}>",
            f"Call-ID: {call_id or self.call_id}",
            f"CSeq: {self.cseq} {method}",
            *lines,
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*head, "", body])

    def ask(self, message: str) -> str:
        """Send a request; return the final answer."""
        self.send(message, self.proxy_port, self.proxy)
        while (reply := self.receive()).startswith(("SIP/2.0 1", "OPTIONS")):
            pass
        return reply

    def register(self, password: str = "", *lines: str, expires: int = 600, contact: str = "") -> str:
        """Register, answering a challenge where a password is given; return the last answer."""
        uri = f"sip:{self.domain}"
        contacts = [f"Contact: {contact or self.contact}", f"Expires: {expires}", *lines]
        reply = self.ask(self.request("REGISTER", uri, *contacts))
        if password and reply.startswith("SIP/2.0 401"):
            credentials = authorization(values(reply, "WWW-Authenticate")[0], "REGISTER", uri, (self.account or self.user, password))
            reply = self.ask(self.request("REGISTER", uri, *contacts, f"Authorization: {credentials}"))
        return reply

    def invite(self, uri: str, password: str = "", **options: Any) -> str:
        """Send an INVITE, answering a challenge where a password is given; return the first answer that is no challenge and no 100."""
        call_id = secrets.token_hex(6)
        lines = [f"Contact: {self.contact}"]
        self.send(self.request("INVITE", uri, *lines, to=uri, call_id=call_id, **options), self.proxy_port, self.proxy)
        reply = self.receive_until("SIP/2.0", having="SIP/2.0")
        while reply.startswith("SIP/2.0 100"):
            reply = self.receive()
        if password and reply.startswith("SIP/2.0 407"):
            credentials = authorization(values(reply, "Proxy-Authenticate")[0], "INVITE", uri, (self.account or self.user, password))
            message = self.request("INVITE", uri, *lines, f"Proxy-Authorization: {credentials}", to=uri, call_id=call_id, **options)
            self.send(message, self.proxy_port, self.proxy)
            reply = self.receive()
            while reply.startswith("SIP/2.0 100"):
                reply = self.receive()
        return reply
