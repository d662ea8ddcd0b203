//! Probes gateways with OPTIONS (RFC 3261 section 11) and notes what they say.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proto::{Key, Now, milliseconds};
use routing::{Down, GatewayState, Outcome, ProbeMode};
use smallvec::SmallVec;
use syntax::Method;

use crate::edge::Edge;
use crate::origin::Origin;
use crate::question::Address;
use crate::route::RouteView;
use crate::target::TargetSet;

/// Answers that say that a machine is there and does not want to serve.
const NOT_AT_WORK: [u16; 2] = [408, 480];

impl Edge {
    /// Probes the gateways whose turn it is in this second; to be called once a second, by one worker of all.
    pub(crate) fn probe_gateways(&mut self, now: Now) {
        let interval = self.snapshot.settings.health.probe_interval_seconds.max(1);
        let turn = now.moment.0 / 1_000_000 % interval;
        let method = Method::from_bytes(self.snapshot.settings.health.probe_method.as_bytes());
        let snapshot = Arc::clone(&self.snapshot);
        let pools = snapshot.pools.iter().flatten().map(|pool| (pool.terms.pool.map(|(peer, _)| peer), &pool.routing));
        let routing = Arc::clone(&self.routing);
        let all = std::iter::once((None, &routing)).chain(pools);
        for (pool, number, partition) in all.flat_map(|(pool, routing)| routing.partitions.iter().enumerate().map(move |(number, there)| (pool, number, there)))
        {
            // All are probed once in an interval, spread over its seconds.
            for index in (turn as usize..partition.table.gateways.len()).step_by(interval as usize) {
                let gateway = &partition.table.gateways[index];
                let wanted = match gateway.probe {
                    ProbeMode::Never => false,
                    ProbeMode::WhileDown => gateway.state.down() != Down::No,
                    ProbeMode::Always => true,
                };
                if !wanted || gateway.state.is_off() {
                    continue;
                }
                let hop = &partition.hops[index];
                let listener = hop.listener(&self.snapshot.settings.listeners);
                let request = self.probe_request(&gateway.uri, listener);
                let targets = TargetSet {
                    targets: SmallVec::from_buf([hop.target.clone()]),
                    policy: pool.or_else(|| self.snapshot.gateway_peer(gateway.kind)),
                    plan: None,
                    from: None,
                    loop_hash: None,
                };
                let origin = Origin::Probe { partition: number, pool, gateway: Arc::clone(&gateway.state) };
                let wait = milliseconds(self.snapshot.settings.health.probe_timeout_milliseconds);
                gateway.state.probes[0].fetch_add(1, Relaxed);
                if !self.send_by(now, origin, request.as_bytes(), method, RouteView::default(), targets, None, listener, wait) {
                    log::warn!(target: "routing", "a probe finds no place among the transactions");
                }
            }
        }
    }

    fn probe_request(&mut self, uri: &str, listener: Option<u16>) -> String {
        let from = match self.snapshot.settings.health.probe_from.as_str() {
            "" => format!("sip:probe@{}", String::from_utf8_lossy(self.snapshot.sent_by(listener.unwrap_or(0)))),
            from => from.to_owned(),
        };
        let method = self.snapshot.settings.health.probe_method.clone();
        let (tag, id) = (self.random(), self.random());
        let mut header = Vec::new();
        self.push_server_header(&mut header);
        let header = String::from_utf8_lossy(&header).replace("Server:", "User-Agent:");
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP origin.invalid;branch=z9hG4bK-origin\r\nMax-Forwards: 71\r\nFrom: <{from}>;tag={tag:016x}\r\nTo: <{uri}>\r\nCall-ID: {id:016x}@probe\r\nCSeq: 1 {method}\r\nAccept: application/sdp\r\n{header}Content-Length: 0\r\n\r\n"
        )
    }

    /// A name stands for all its addresses (RFC 3263 section 4.3): one that is silent for the whole wait of a probe says
    /// nothing of the gateway as long as there are others. False where there are none, or `entry` is no probe.
    pub(crate) fn probe_next_address(&mut self, now: Now, entry: Key) -> bool {
        let wait = milliseconds(self.snapshot.settings.health.probe_timeout_milliseconds);
        let Some(transaction) = self.transactions.get_mut(entry).filter(|there| there.is_probe() && !there.addresses.is_empty()) else { return false };
        let attempt = transaction.branches.len().saturating_sub(1);
        let Some(branch) = transaction.branches.get_mut(attempt) else { return false };
        transaction.give_up_at = now.moment + wait;
        branch.client.handle_transport_error();
        branch.sent = Box::default();
        let target = Address { transport: branch.hop.transport, address: branch.hop.address };
        let peer = branch.peer;
        self.counters.attempts_unanswered.add();
        self.counts_of(peer).unanswered.add();
        if self.heard.get(&target.address).is_none_or(|at| now.moment.since(*at) >= wait) {
            self.mark_dead(now, target, peer);
        }
        self.attempt_failed(now, entry, attempt, 408, Outcome::Silence);
        true
    }

    /// A probe was answered, or not.
    pub(crate) fn probed(&mut self, now: Now, partition: usize, pool: Option<u16>, gateway: &GatewayState, status_code: u16) {
        let accepted = &self.snapshot.settings.health.probe_accept;
        let good = match status_code {
            200..=299 => true,
            300..=499 if accepted.is_empty() => !NOT_AT_WORK.contains(&status_code),
            code => accepted.contains(&code),
        };
        if gateway.note_probe(now.moment.0, good, &self.snapshot.health) {
            self.tell_gateway(now, partition, pool, gateway);
        }
    }
}
