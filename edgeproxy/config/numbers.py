"""`[numbers.NAME]`, what peers make of them, and `[gateway.NAME]`: numbers of one form made those of another."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath
from edgeproxy.config.routing import Answer

NumberField = Literal["request_uri", "from", "p_asserted_identity", "diversion"]


class NumberRule(msgspec.Struct, frozen=True):
    """One of `rules`: which numbers it is for, and what becomes of them."""

    prefix: str | None = None
    """It is for numbers that begin so; empty: for all."""
    pattern: str | None = None
    """It is for numbers in which this regular expression is found, in place of `prefix`. Look-around and back references are unknown."""
    strip: Annotated[int, Meta(ge=0, le=64)] = 0
    """Characters that go from the front."""
    add: str = ""
    """What comes to the front then."""
    replace: str | None = None
    """The whole new number, with `\\\\1` to `\\\\9` for what the groups of `pattern` found, in place of `strip` and `add`."""

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if (self.prefix is None) == (self.pattern is None):
            faults.add(path, "expected `prefix` or `pattern`")
        if self.replace is not None and (self.strip or self.add):
            faults.add((*path, "replace"), "`replace` makes the whole number: expected neither `strip` nor `add` beside it")
        if self.replace is not None and self.pattern is None:
            faults.add((*path, "replace"), "`replace` needs `pattern`")
        if self.replace and not set(self.replace) - set("-.()"):
            faults.add((*path, "replace"), f"expected what leaves something of a number, got: {self.replace}")
        for key, text in (("add", self.add), ("replace", self.replace or "")):
            if not all("!" <= character <= "~" for character in text):
                faults.add((*path, key), f"expected printable characters without spaces, got: {text}")


class NumberSet(msgspec.Struct, frozen=True):
    """One `[numbers.NAME]`: rules, of which the first that is for a number makes another one of it."""

    rules: list[NumberRule] = field(default_factory=list)
    """The rules, in order. A number is what stands before a semicolon in the user part, without escapes and without what only parts digits (`-`, `.`, `(`, `)`, space)."""
    dialplan: Annotated[int, Meta(ge=0, le=4_294_967_295)] | None = None
    """Rows of the table `dialplan` with this `dpid` come behind them."""
    refuse: Answer | None = None
    """What a request is refused with whose Request-URI has a number or name that no rule is for, such as `{ status_code = 484 }`; absent: the number stays as it is. A rule with `prefix = ""` is for every number."""

    def document(self, name: str) -> dict[str, Any]:
        """Return what the native side reads."""
        refuse = (self.refuse.status_code, self.refuse.reason_phrase) if self.refuse else None
        return {"name": name, "rules": msgspec.to_builtins(self.rules), "dialplan": self.dialplan, "refuse": refuse}

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        if not self.rules and self.dialplan is None:
            faults.add(path, "a set of numbers needs `rules`, `dialplan`, or both")
        for place, rule in enumerate(self.rules):
            rule.check((*path, "rules", str(place)), faults)
        if self.refuse and not self.refuse.reason_phrase.isprintable():
            faults.add((*path, "refuse", "reason_phrase"), "expected printable text")


class NumberUse(msgspec.Struct, frozen=True):
    """`numbers_in` and `numbers_out`: which set holds, and for what. INVITE and MESSAGE that open something are changed, and nothing else."""

    set: str
    """The `[numbers.NAME]`."""
    fields: list[NumberField] = field(default_factory=lambda: ["request_uri", "from", "p_asserted_identity", "diversion"])
    """What is changed. Answers to the sender have its own From."""
    scheme: Literal["keep", "sip", "tel"] = "keep"
    """How the number is written: as it came, as `sip:` with `user=phone`, or as `tel:` where it is a global one, with `+` (RFC 3966)."""

    def check(self, path: KeyPath, faults: Faults, sets: frozenset[str]) -> None:
        """Check what types cannot."""
        if self.set not in sets:
            faults.add((*path, "set"), f"no such set of numbers, got: {self.set}", f"sets: {', '.join(sorted(sets)) or 'none'}")
        if not self.fields:
            faults.add((*path, "fields"), "expected one field at least")


class Gateway(msgspec.Struct, frozen=True):
    """One `[gateway.NAME]`: what the file says of a gateway of the database (`dr_gateways.gwid`), in place of what its peer has."""

    numbers_in: NumberUse | None = None
    """What numbers become that it sends."""
    numbers_out: NumberUse | None = None
    """What numbers become that it gets, after `strip` and `pri_prefix`."""

    def document(self, name: str) -> dict[str, Any]:
        """Return what the native side reads."""
        return {"name": name, **msgspec.to_builtins(self)}

    def check(self, path: KeyPath, faults: Faults, sets: frozenset[str]) -> None:
        """Check what types cannot."""
        for key, use in (("numbers_in", self.numbers_in), ("numbers_out", self.numbers_out)):
            if use:
                use.check((*path, key), faults, sets)
