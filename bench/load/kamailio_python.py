"""The KEMI script of kamailio_python.cfg: what relay_policy.py does, in Kamailio's words."""

# ruff: noqa: ANN201, ANN001
import KSR

TARGETS = {"service": "sip:127.0.0.1:5070"}


def mod_init():
    return Kamailio()


class Kamailio:
    def child_init(self, rank):
        return 0

    def ksr_request_route(self, message):
        if KSR.maxfwd.process_maxfwd(70) < 0:
            KSR.sl.sl_send_reply(483, "Too Many Hops")
            return 1
        if KSR.siputils.has_totag() > 0:
            KSR.rr.loose_route()
            KSR.tm.t_relay()
            return 1
        if KSR.pv.get("$rm") == "CANCEL":
            if KSR.tm.t_check_trans() > 0:
                KSR.tm.t_relay()
            return 1
        KSR.tm.t_check_trans()
        KSR.rr.record_route()
        user = KSR.pv.get("$rU")
        KSR.hdr.append(f"X-Decided: {KSR.pv.get('$fU')} {KSR.pv.get('$hdr(Subject)')}\r\n")
        KSR.pv.sets("$du", TARGETS[user])
        KSR.tm.t_relay()
        return 1
