//! What a worker sends, asks and records.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use edge::{CredentialAnswer, Event, EventKind, EventValue, Hop, Transmit};
use mio::net::UdpSocket;
use proto::Now;

use super::Worker;
use super::port::Port;
use crate::mail::Mail;
use crate::trace::TraceKind;

impl Worker {
    /// Datagrams to send by `listener`.
    pub(crate) fn datagrams_for(&self, listener: usize) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let out = &self.edge.out;
        let mine = move |t: &&Transmit| usize::from(t.hop.listener) == listener && !t.hop.transport.is_reliable();
        out.sends().iter().filter(mine).map(|t| (t.hop.address, out.bytes(t)))
    }

    /// The socket by which datagrams leave `listener`, whichever worker they are of.
    pub(crate) fn socket(&self, listener: usize) -> Option<&UdpSocket> {
        match self.ports.get(listener) {
            Some(Port::Datagram { socket, .. } | Port::Sender(socket)) => Some(socket),
            Some(Port::Stream(_) | Port::Nothing) | None => None,
        }
    }

    /// How many listeners there are.
    pub(crate) fn listeners(&self) -> usize {
        self.ports.len()
    }

    /// Sends what goes by connections; the datagrams went before. What could not be sent is added to `failed`.
    pub(crate) fn flush_streams(&mut self, now: Now, failed: &mut Vec<Box<[u8]>>) {
        self.trace(now);
        if self.edge.out.sends().iter().any(|t| t.hop.transport.is_reliable()) {
            let out = std::mem::take(&mut self.edge.out);
            for transmit in out.sends().iter().filter(|t| t.hop.transport.is_reliable()) {
                self.send_stream(&transmit.hop, out.bytes(transmit));
            }
            self.edge.out = out;
        }
        self.edge.out.clear_sends();
        self.streams.flush_queued();
        failed.append(&mut self.streams.undelivered);
    }

    /// Keeps what was decided and what is sent.
    fn trace(&mut self, now: Now) {
        if !self.tracing {
            return;
        }
        let (trace, out) = (&self.shared.traces[self.index], &mut self.edge.out);
        trace.write_decisions(now.wall, out.decisions.iter());
        out.decisions.clear();
        trace.write(TraceKind::Sent, now.wall, out.sends().iter().map(|transmit| (&transmit.hop, out.bytes(transmit))));
    }

    /// Asks what the edge wants to know, and passes its records on.
    pub(crate) fn hand_out(&mut self, now: Now) {
        self.hand_out_users(now);
        for question in std::mem::take(&mut self.edge.out.questions) {
            self.shared.resolver.ask(question);
        }
        self.edge.out.events.drain(..).for_each(|event| self.shared.events.push(event));
        for (remote, local) in self.streams.gone.drain(..) {
            self.shared.events.push(disconnect(remote, local));
        }
        match &self.shared.records {
            Some(records) => self.edge.out.records.drain(..).for_each(|record| records.push(record)),
            None => self.edge.out.records.clear(),
        }
    }

    /// Asks for users, and hands over what is to be written of them.
    fn hand_out_users(&mut self, now: Now) {
        for question in std::mem::take(&mut self.edge.out.reaches) {
            if !self.shared.posts[usize::from(question.home)].post(Mail::Reach(question)) {
                self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
            }
        }
        for question in std::mem::take(&mut self.edge.out.shares) {
            if !self.shared.shares.ask(question) {
                self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
            }
        }
        for failure in self.edge.out.failures.drain(..) {
            if !self.shared.shares.tell(failure) {
                self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.edge.out.location.drain(..).for_each(|write| self.shared.users.write(write));
        for question in std::mem::take(&mut self.edge.out.credentials) {
            if !self.shared.users.ask(question.clone()) {
                self.guarded(now, |edge| edge.handle_credentials(now, &question, &CredentialAnswer::Unavailable));
            }
        }
    }

    /// A datagram that the kernel would not send.
    pub(crate) fn count_send_error(&self) {
        self.status.send_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn send_stream(&mut self, hop: &Hop, bytes: &[u8]) {
        let owner = hop.connection.map_or(self.index, |id| usize::from(id.worker));
        if owner != self.index && owner < self.shared.posts.len() {
            if !self.shared.posts[owner].post(Mail::Send(*hop, bytes.into())) {
                self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let local = self.edge.listener_address(hop.listener).ip();
        self.streams.send(self.poll.registry(), hop, local, bytes);
    }
}

/// The event of a connection that is gone.
fn disconnect(remote: SocketAddr, local: SocketAddr) -> Event {
    let place = |address: SocketAddr| [EventValue::from(address.ip().to_string()), u64::from(address.port()).into()];
    let values = place(remote).into_iter().chain(place(local)).chain(["tcp".into()]).collect();
    Event { kind: EventKind::CoreTcpDisconnect, wall: crate::clock::wall(), values }
}
