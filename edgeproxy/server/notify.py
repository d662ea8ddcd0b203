"""Tells the service manager how far we are (sd_notify(3))."""

import os
import socket


def notify(state: str) -> None:
    """Send `state` to the socket that `NOTIFY_SOCKET` names; do nothing where it names none. Raise `OSError` where nobody takes it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), address)
