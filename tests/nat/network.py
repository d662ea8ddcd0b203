"""A small Internet of network namespaces: the proxy in this one, homes with phones behind routers with nftables."""

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROXY = "198.51.100.1"
_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def command(*words: str) -> None:
    """Run a command here; raise `RuntimeError` with what it said where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(descriptor)


class Namespace:
    """A network namespace, held by a process that sleeps."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        own = Path("/proc/self/ns/net").readlink()
        for _ in range(200):
            try:
                if Path(self.path).readlink() != own:
                    break
            except OSError:
                continue
            finally:
                time.sleep(0.01)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> str:
        return str(self._holder.pid)

    @property
    def path(self) -> str:
        return f"/proc/{self._holder.pid}/ns/net"

    def line(self, *words: str) -> list[str]:
        """Return the command that runs `words` there."""
        return ["nsenter", "-t", self.pid, "-n", *words]

    def run(self, *words: str) -> None:
        command(*self.line(*words))

    def set(self, key: str, value: int) -> None:
        """Set a kernel parameter there."""
        self.run("sh", "-c", f"echo {value} > /proc/sys/net/{key}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread make its sockets there."""
        own = f"/proc/self/task/{os.getpid()}/ns/net"
        back = os.open(own, os.O_RDONLY)
        _enter(self.path)
        try:
            yield
        finally:
            if _libc.setns(back, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")
            os.close(back)

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Home:
    """A router with one outside address, and a network 10.0.0.0/24 behind it, which all homes have alike."""

    def __init__(self, number: int, nat: tuple[str, ...]) -> None:
        self.address = f"198.51.100.{10 + number}"
        self.router, self.inside = Namespace(), Namespace()
        outside, near, far = f"out{number}", f"in{number}", f"home{number}"
        command("ip", "link", "add", f"wan{number}", "type", "veth", "peer", "name", outside, "netns", self.router.pid)
        command("ip", "link", "set", f"wan{number}", "master", "internet", "up")
        self.router.run("ip", "addr", "add", f"{self.address}/24", "dev", outside)
        self.router.run("ip", "link", "set", outside, "up")
        self.router.run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.inside.pid)
        self.router.run("ip", "addr", "add", "10.0.0.1/24", "dev", near)
        self.router.run("ip", "link", "set", near, "up")
        for host in range(2, 6):
            self.inside.run("ip", "addr", "add", f"10.0.0.{host}/24", "dev", far)
        self.inside.run("ip", "link", "set", far, "up")
        self.inside.run("ip", "route", "add", "default", "via", "10.0.0.1")
        self.router.set("ipv4/ip_forward", 1)
        self.router.run("nft", "add", "table", "ip", "nat")
        self.router.run("nft", "add", "chain", "ip", "nat", "post", "{ type nat hook postrouting priority 100 ; }")
        self.router.run("nft", "add", "chain", "ip", "nat", "pre", "{ type nat hook prerouting priority -100 ; }")
        for rule in nat:
            chain, _, text = rule.format(outside=outside, address=self.address).partition(" ")
            self.router.run("nft", "add", "rule", "ip", "nat", chain, *text.split())

    def lose(self, percent: int) -> None:
        """Drop so many of all packets that the router forwards."""
        self.router.run("nft", "add", "chain", "ip", "nat", "loss", "{ type filter hook forward priority 0 ; }")
        self.router.run("nft", "add", "rule", "ip", "nat", "loss", "numgen", "random", "mod", "100", "<", str(percent), "drop")

    def end(self) -> None:
        self.router.end()
        self.inside.end()


ENDPOINT_INDEPENDENT = (
    "post oifname {outside} ip saddr 10.0.0.2 udp sport 5060 snat to {address}:20000",
    "pre iifname {outside} udp dport 20000 dnat to 10.0.0.2:5060",
    "post oifname {outside} masquerade",
)
PORT_RESTRICTED = ("post oifname {outside} masquerade",)
SYMMETRIC = ("post oifname {outside} masquerade fully-random",)


@contextmanager
def internet() -> Iterator[None]:
    """Give this namespace, which must be a fresh one, the proxy's address."""
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "internet", "type", "bridge")
    command("ip", "addr", "add", f"{PROXY}/24", "dev", "internet")
    command("ip", "link", "set", "internet", "up")
    try:
        yield
    finally:
        command("ip", "link", "del", "internet")
