"""For whoever writes a policy: a simulated edge on simulated time, requests, and what came of them."""

from edgeproxy.testing.edge import SimulatedEdge
from edgeproxy.testing.request import request
from edgeproxy.testing.response import Response

__all__ = ["Response", "SimulatedEdge", "request"]
