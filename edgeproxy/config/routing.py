"""`[routing]` and `[route.NAME]`: calls by rules that are provisioned in the database."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from edgeproxy.config.faults import Faults
from edgeproxy.config.positions import KeyPath

FinalCode = Annotated[int, Meta(ge=300, le=699)]
Cause = Annotated[int, Meta(ge=1, le=127)]
_CODES = [500, 502, 503, 504]
_CAUSES = [34, 38, 41, 42, 44, 47]
_STOP_CAUSES = [1, 16, 17, 18, 19, 20, 21, 28]


class Answer(msgspec.Struct, frozen=True):
    """An answer of the proxy's own."""

    status_code: FinalCode
    """The status code."""
    reason_phrase: str = ""
    """Another text than the customary one."""


class Retry(msgspec.Struct, frozen=True):
    """`[route.NAME.retry]`: which failures the next gateway is tried after. An address that refuses always counts, a caller who gave up never."""

    preset: Literal["carrier", "talk"] = "carrier"
    """What stands for keys that are left out. `carrier`: what says that the way failed, and nothing that says something of the callee. `talk`: silence, ringing for too long, every 5xx and 6xx."""
    status_codes: list[FinalCode] | None = None
    """Final status codes; a 408 that did not ring counts as silence."""
    causes: list[Cause] | None = None
    """Q.850 causes in the Reason header field (RFC 3326), whatever the status code."""
    stop_causes: list[Cause] | None = None
    """Q.850 causes that end the search, whatever the status code."""
    silence: bool = True
    """Whether the next is tried where nobody answers in time."""
    ringing: bool | None = None
    """Whether it is where somebody rings for too long."""

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        talk = self.preset == "talk"
        codes, causes, stops = (list(range(500, 700)), [], []) if talk else (_CODES, _CAUSES, _STOP_CAUSES)
        return {
            "retry_status_codes": codes if self.status_codes is None else self.status_codes,
            "retry_causes": causes if self.causes is None else self.causes,
            "stop_causes": stops if self.stop_causes is None else self.stop_causes,
            "retry_silence": self.silence,
            "retry_ringing": talk if self.ringing is None else self.ringing,
        }


class Route(msgspec.Struct, frozen=True):
    """One `[route.NAME]`: a peer whose `route` names it sends its calls by the rules of a group."""

    group: Annotated[int, Meta(ge=0, le=4_294_967_295)] = 0
    """The group of rules (`dr_rules.groupid`)."""
    partition: str = ""
    """The partition of rules (`dr_partitions`); empty for the tables without one."""
    fall_back: bool = False
    """Whether further rules are tried, those of shorter prefixes too, once the gateways of one are used up (flag F)."""
    whole_number: bool = False
    """Whether a prefix must be the whole number (flag L)."""
    by_weight: bool = False
    """Whether destinations are sorted by weight, whatever `dr_rules.sort_alg` says (flag W)."""
    by_routing_number: bool = False
    """Whether a number is looked up by the routing number that its sender put into the Request-URI (`rn`, RFC 4694); the gateway gets the number that was dialled, with its parameters. Only for senders that have looked it up. What `lookups` found is used in any case."""
    caller_groups: Literal["off", "user", "user_and_domain"] = "off"
    """Whether the group is that of the caller in `dr_groups`, by the user of From, or by user and domain; one who is not there has `group`."""
    check_only: bool = False
    """Whether a rule must only be there: the call then goes where it would go without this route (flag C)."""
    whitelist: list[str] = field(default_factory=list)
    """Gateways, and carriers with `#` in front, that calls are bound to; empty: all."""
    first_answer_seconds: Annotated[float, Meta(gt=0, le=32)] = 4.0
    """Longest wait for any answer of a gateway."""
    final_answer_seconds: Annotated[float, Meta(ge=1, le=3_600)] = 185.0
    """Longest wait for its final answer after a provisional one."""
    retry: Retry = field(default_factory=Retry)
    """Which failures the next gateway is tried after."""
    not_found: Answer = field(default_factory=lambda: Answer(404))
    """The answer where no rule fits the number."""
    unavailable: Answer = field(default_factory=lambda: Answer(480))
    """The answer where no gateway is usable."""
    hide_failures: bool = False
    """Whether that is the answer too where every gateway that was tried failed; else the best of theirs is."""

    def document(self, name: str) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "name": name,
            "partition": self.partition,
            "group": self.group,
            "fall_back": self.fall_back,
            "whole_number": self.whole_number,
            "by_weight": self.by_weight,
            "whitelist": self.whitelist,
            "by_routing_number": self.by_routing_number,
            "caller_groups": self.caller_groups,
            "check_only": self.check_only,
            "first_answer_milliseconds": round(self.first_answer_seconds * 1_000),
            "final_answer_milliseconds": round(self.final_answer_seconds * 1_000),
            **self.retry.document(),
            "not_found": (self.not_found.status_code, self.not_found.reason_phrase),
            "unavailable": (self.unavailable.status_code, self.unavailable.reason_phrase),
            "hide_failures": self.hide_failures,
        }

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        for key, answer in (("not_found", self.not_found), ("unavailable", self.unavailable)):
            if not answer.reason_phrase.isprintable():
                faults.add((*path, key, "reason_phrase"), "expected printable text")


class Health(msgspec.Struct, frozen=True):
    """`[routing.health]`: when calls take a gateway out of the rotation."""

    failures: Annotated[int, Meta(ge=1, le=32)] = 3
    """So many failed attempts take it out; an address that refuses does at once."""
    of: Annotated[int, Meta(ge=1, le=32)] = 10
    """Of the last so many attempts."""
    status_codes: list[FinalCode] = field(default_factory=lambda: [503])
    """Final responses that count as failed attempts; silence always does. One bad number must not take a trunk out, so only what speaks of the gateway belongs here."""
    retry_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 30
    """When a gateway that is not probed is tried again with a call."""


class Probe(msgspec.Struct, frozen=True):
    """`[routing.probe]`: requests to gateways whose `probe_mode` is 1 (while they are out) or 2 (always)."""

    interval_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 30
    """Between two probes of a gateway."""
    method: Literal["OPTIONS", "INFO", "NOTIFY"] = "OPTIONS"
    """The method; any answer that `accept` takes will do, so that a machine need not know it."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=32)] = 4.0
    """Longest wait for the answer."""
    from_uri: str = ""
    """URI of From; empty for `sip:probe@` with the listener's address."""
    accept: list[FinalCode] = field(default_factory=list)
    """Status codes of 300 and more that prove the gateway well; empty: every 3xx and 4xx but 408 and 480, since a machine that refuses is at work."""
    down_after: Annotated[int, Meta(ge=1, le=100)] = 1
    """Failed probes in a row that take it out."""
    up_after: Annotated[int, Meta(ge=1, le=100)] = 1
    """Good ones in a row that bring it back."""


class Quality(msgspec.Struct, frozen=True):
    """`[routing.quality]`: figures of each pair of rule and gateway that has calls, for rules and carriers whose `sort_alg` is `Q`."""

    span_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 1_800
    """How far figures look back; what is older goes in twelfths of that."""
    asr_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 30
    """Finished attempts below which ASR (answered of all) and CCR (not failed by the gateway) say nothing."""
    pdd_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    """Attempts that rang below which PDD says nothing."""
    ast_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    """Answered attempts below which AST (time to the answer) says nothing."""
    acd_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    """Calls that ended below which ACD says nothing."""
    order: Literal["draw", "best_first"] = "draw"
    """What scores do: `draw` makes them weights, so that half the score means half the share; `best_first` tries the best one first, equals as they stand."""
    critical: Literal["penalty", "drop"] = "penalty"
    """What becomes of a gateway beyond a critical threshold: its penalty, or it is left out of the rule until calls on probation show that it is better."""
    probation_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.05
    """Share of calls that a gateway on probation gets."""
    pairs: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    """Pairs of rule and gateway that are kept, in each partition."""

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "span_seconds": self.span_seconds,
            "samples": [self.asr_samples, self.asr_samples, self.pdd_samples, self.ast_samples, self.acd_samples],
            "best_first": self.order == "best_first",
            "drop": self.critical == "drop",
            "probation_permille": round(self.probation_share * 1_000),
            "pairs": self.pairs,
        }


class Routing(msgspec.Struct, frozen=True):
    """`[routing]`: how rules and gateways are read from `install.database`."""

    extra_prefix_characters: str = ""
    """Characters beside digits that prefixes may have, five at most. Without `+` among them a leading plus sign of a number is left out."""
    bad_rows: Literal["skip", "refuse"] = "skip"
    """What becomes of a load with rows that cannot be used: the others serve, or what served before goes on."""
    partitions: bool = False
    """Whether `dr_partitions` names further sets of tables."""
    resolve_seconds: Annotated[int, Meta(ge=10, le=86_400)] = 300
    """How often names of gateways are looked up anew, to know who calls from there."""
    database_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 300.0
    """Longest time for one load."""
    health: Health = field(default_factory=Health)
    """When calls take a gateway out of the rotation."""
    probe: Probe = field(default_factory=Probe)
    """How gateways are probed."""
    quality: Quality = field(default_factory=Quality)
    """How quality is measured, and what comes of it."""

    def document(self) -> dict[str, Any]:
        """Return what the native side reads."""
        return {
            "failures": self.health.failures,
            "of": self.health.of,
            "failure_codes": self.health.status_codes,
            "retry_seconds": self.health.retry_seconds,
            "probe_interval_seconds": self.probe.interval_seconds,
            "probe_timeout_milliseconds": max(1, round(self.probe.timeout_seconds * 1_000)),
            "probe_method": self.probe.method,
            "probe_from": self.probe.from_uri,
            "probe_accept": self.probe.accept,
            "down_after": self.probe.down_after,
            "up_after": self.probe.up_after,
        }

    def check(self, path: KeyPath, faults: Faults) -> None:
        """Check what types cannot."""
        extra = {character for character in self.extra_prefix_characters if character not in "0123456789"}
        if len(extra) > 5 or not all("!" <= character <= "~" for character in extra):
            faults.add(
                (*path, "extra_prefix_characters"), f"expected five printable characters at most, got: {self.extra_prefix_characters}"
            )
        if self.health.failures > self.health.of:
            faults.add((*path, "health", "failures"), f"expected at most `of` ({self.health.of}), got: {self.health.failures}")
        uri = self.probe.from_uri
        if uri and (not uri.startswith(("sip:", "sips:")) or not uri.isprintable() or any(character in uri for character in '<>" ')):
            faults.add((*path, "probe", "from_uri"), f"expected a SIP URI, got: {uri}")
