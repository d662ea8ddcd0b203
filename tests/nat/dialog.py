"""A call between two phones."""

from tests.integration.agent import answer, values
from tests.integration.phone import Phone
from tests.nat.network import PROXY

PORT = 5060


class Dialog:
    """A call between two phones, answered; with what each says of its media, if anything."""

    def __init__(self, caller: Phone, callee: Phone, offer: str = "", answered: str = "") -> None:
        self.caller, self.callee = caller, callee
        self.call_id = f"call-{caller.user}-{caller.cseq}"
        uri = f"sip:{callee.user}@edge.example"
        kind = ["Content-Type: application/sdp"] if offer else []
        request = caller.request("INVITE", uri, f"Contact: {caller.contact}", *kind, to=uri, call_id=self.call_id, body=offer)
        caller.send(request, PORT, PROXY)
        self.invite = callee.receive_until("INVITE", having=self.call_id)
        assert self.invite, "the callee rings"
        head = answer(self.invite, "200 OK").partition("Content-Length")[0]
        kind = ["Content-Type: application/sdp"] if answered else []
        lines = [f"Contact: {callee.contact}", *kind, f"Content-Length: {len(answered)}", "", answered]
        callee.send(head + "\r\n".join(lines), PORT, PROXY)
        self.ok = caller.receive_until("SIP/2.0 200", having=self.call_id)
        assert self.ok, "the caller is answered"
        self.send("ACK", from_caller=True)
        assert callee.receive_until("ACK", having=self.call_id)

    def send(self, method: str, *, from_caller: bool, sender: Phone | None = None, body: str = "") -> None:
        """Send a request within the dialog, as a user agent does."""
        told = self.ok if from_caller else self.invite
        who = sender or (self.caller if from_caller else self.callee)
        routes = values(told, "Record-Route")
        routes = routes[::-1] if from_caller else routes
        remote = values(told, "Contact")[0].split("<")[1].split(">")[0]
        kind = ["Content-Type: application/sdp"] if body else []
        message = who.request(method, remote, *(f"Route: {route}" for route in routes), *kind, call_id=self.call_id, body=body)
        mine, other = (
            (values(self.ok, "From")[0], values(self.ok, "To")[0])
            if from_caller
            else (values(self.ok, "To")[0], values(self.ok, "From")[0])
        )
        lines = [line for line in message.split("\r\n") if not line.startswith(("From:", "To:"))]
        who.send("\r\n".join([lines[0], f"From: {mine}", f"To: {other}", *lines[1:]]), PORT, PROXY)

    def hears(self, method: str, *, callee: bool) -> bool:
        """Whether that side gets a request within the dialog, with the Request-URI that it gave."""
        who = self.callee if callee else self.caller
        message = who.receive_until(method, having=self.call_id)
        if message:
            who.send(answer(message, "200 OK"), PORT, PROXY)
        return message.startswith(f"{method} {who.contact.strip('<>')} SIP/2.0")
