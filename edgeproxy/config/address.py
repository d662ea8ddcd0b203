"""Addresses as the file writes them: listeners, advertised addresses, and the rules by which a peer is known."""

import ipaddress
import re

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST_PORT = re.compile(r"^(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/]+))(?::(?P<port>\d{1,5}))?$")
_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?$")


def split_host_port(text: str) -> tuple[str, int | None]:
    """Split `host[:port]`, an IPv6 host in brackets; raise `ValueError` for anything else."""
    match = _HOST_PORT.match(text)
    if not match:
        raise ValueError("expected host:port, an IPv6 address in brackets")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("expected a port of 1 to 65535")
    if match["v6"]:
        return str(ipaddress.IPv6Address(match["v6"])), port
    return match["host"], port


def check_host(host: str) -> None:
    """Raise `ValueError` where `host` is neither an address nor a domain name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _NAME.match(host):
            raise ValueError("expected an IP address or a domain name") from None


def check_pattern(text: str) -> None:
    """Raise `ValueError` where `text` is no pattern for a URI: `*` is any text, `?` any one character."""
    if not text:
        raise ValueError("expected a pattern, such as sip:*@carrier.example, behind ;from=")
    if not text.isascii() or not text.isprintable() or "[" in text.replace("@[", "@") or "\\" in text or " " in text:
        raise ValueError("expected a pattern of `*`, `?` and characters of a URI; [sets] are not known")


def unmapped(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Return a network of IPv4-mapped addresses (RFC 4291 section 2.5.5.2) as one of IPv4, which is how its packets look here."""
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


class ListenAddress(msgspec.Struct, frozen=True):
    """`transport:address:port` of a listener."""

    transport: str
    host: Address
    port: int

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Parse `udp:192.0.2.1:5060` or `tcp:[2001:db8::1]:5060`; raise `ValueError` for anything else."""
        transport, colon, rest = text.partition(":")
        if not colon or transport not in {"udp", "tcp"}:
            raise ValueError("expected udp:ADDRESS:PORT or tcp:ADDRESS:PORT")
        host, port = split_host_port(rest)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ValueError("expected an IP address of this machine, not a name") from None
        return cls(transport, address, port or 5060)

    @property
    def socket_address(self) -> str:
        """Return `address:port` as sockets write it."""
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"


class MatchRule(msgspec.Struct, frozen=True):
    """One rule of a peer's `match`: address or network, port, transport, listener; what is absent fits anything."""

    network: str | None
    prefix: int
    port: int
    transport: str
    listener: str
    sender: str = ""
    """A shell pattern for From's URI; empty: any."""

    @classmethod
    def parse(cls, text: str) -> "MatchRule":
        """Parse `address[/prefix][:port][;transport=][;listener=][;from=]` or `*;listener=`; raise `ValueError` else."""
        text, by_sender, sender = text.partition(";from=")
        if by_sender:
            check_pattern(sender)
        place, *parameters = (part.strip() for part in text.split(";"))
        transport = listener = ""
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "transport" and value in {"udp", "tcp"}:
                transport = value
            elif name == "listener" and value:
                listener = value
            else:
                raise ValueError("expected ;transport=udp, ;transport=tcp, ;listener=NAME or ;from=PATTERN behind the address")
        if place == "*":
            if not listener:
                raise ValueError("expected a ;listener=NAME behind *: everyone everywhere is nobody's peer")
            return cls(None, 0, 0, transport, listener, sender)
        port = 0
        if "/" in place:
            network = unmapped(ipaddress.ip_network(place, strict=True))
        else:
            host, found = (place, None) if place.count(":") > 1 and "[" not in place else split_host_port(place)
            port = found or 0
            network = unmapped(ipaddress.ip_network(host))
        return cls(str(network.network_address), network.prefixlen, port, transport, listener, sender)
