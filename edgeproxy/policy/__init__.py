"""Policies in Python: what a handler gets, what it may do, and what it may decide (`docs/policy-contract.md`)."""

from edgeproxy.errors import CallEnded, LookupFailed, PolicyError
from edgeproxy.policy.call import Call, Failure
from edgeproxy.policy.originate import Answer
from edgeproxy.policy.parts import Branch, ChosenRule, PassingResponse
from edgeproxy.policy.policy import Policy
from edgeproxy.policy.raising import raise_event
from edgeproxy.policy.verdict import CONTINUE, DROP, BestResponse, Continue, Drop, Redirect, Reject, Relay, Reply, Verdict

__all__ = [
    "CONTINUE",
    "DROP",
    "Answer",
    "BestResponse",
    "Branch",
    "Call",
    "CallEnded",
    "ChosenRule",
    "Continue",
    "Drop",
    "Failure",
    "LookupFailed",
    "PassingResponse",
    "Policy",
    "PolicyError",
    "Redirect",
    "Reject",
    "Relay",
    "Reply",
    "Verdict",
    "raise_event",
]
