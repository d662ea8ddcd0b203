"""Policies in Python: what a handler gets, what it may do, and what it may decide (`docs/policy-contract.md`)."""

from edgeproxy.errors import CallEnded, LookupFailed, PolicyError
from edgeproxy.policy.call import Call, Failure
from edgeproxy.policy.policy import Policy
from edgeproxy.policy.verdict import CONTINUE, BestResponse, Continue, Redirect, Reject, Relay, Reply, Verdict

__all__ = [
    "CONTINUE",
    "BestResponse",
    "Call",
    "CallEnded",
    "Continue",
    "Failure",
    "LookupFailed",
    "Policy",
    "PolicyError",
    "Redirect",
    "Reject",
    "Relay",
    "Reply",
    "Verdict",
]
