//! What a worker takes from its sockets.

use std::io;

use edge::Hop;
use mio::Token;
use mio::event::Event;
use proto::Now;
use syntax::Transport;

use super::port::Port;
use super::{MAILBOX, Worker};
use crate::connection::Reading;
use crate::datagram::{ReceiveBatch, failed_datagram};
use crate::stream::FIRST_TOKEN;

/// Up to so many datagrams of one batch are little.
const FEW: usize = 16;

impl Worker {
    pub(super) fn event(&mut self, event: &Event) {
        match event.token() {
            // Looked at in every round.
            MAILBOX => {}
            Token(token) if token >= FIRST_TOKEN => {
                if event.is_writable() {
                    self.streams.flush(token - FIRST_TOKEN);
                }
                let slot = token - FIRST_TOKEN;
                let ends = event.is_read_closed() || event.is_error();
                if (event.is_readable() || ends) && self.streams.enqueue(slot, ends) {
                    self.readable.push_back(slot);
                }
            }
            Token(number) => match &mut self.ports[number] {
                Port::Datagram { more, errors, .. } => {
                    *more = true;
                    *errors |= event.is_error();
                }
                Port::Sender(_) | Port::Nothing => {}
                Port::Stream(socket) => self.streams.accept(self.poll.registry(), number as u16, socket),
            },
        }
    }

    /// Takes one batch from each UDP socket that has something.
    pub(super) fn datagrams(&mut self, mut now: Now) -> usize {
        let mut received = 0;
        for number in 0..self.ports.len() {
            let Port::Datagram { socket, more: more @ true, errors, .. } = &mut self.ports[number] else { continue };
            match self.receive.receive(socket) {
                Ok(count) => {
                    // A batch that was not filled emptied the socket: the next datagram will wake us.
                    *more = count == self.receive.size();
                    received += count;
                    let receive = std::mem::replace(&mut self.receive, ReceiveBatch::new(0));
                    for index in 0..count {
                        let Some((source, bytes)) = receive.datagram(index) else { continue };
                        let hop = Hop { listener: number as u16, transport: Transport::Udp, address: source, connection: None };
                        // Keep-alives of two or four bytes and the like (RFC 5626 section 4.4.1) are nothing to keep a trace of.
                        if bytes.len() > 4 {
                            if self.edge.turns_away(now, &hop, bytes) {
                                self.turned_away += 1;
                                self.shut_out.note(source.ip());
                            } else {
                                self.deliver(now, &hop, bytes, false);
                            }
                        } else {
                            self.guarded(now, |edge| edge.handle_keep_alive(now, &hop));
                        }
                        // Where little comes, a call need not wait for what came with it; where much does, one wake-up is for many.
                        if count <= FEW && !self.edge.out.policy.is_empty() {
                            self.ask_policies(now);
                            now = self.shared.clock.now();
                        }
                    }
                    self.receive = receive;
                }
                Err(error) => {
                    *more = error.kind() != io::ErrorKind::WouldBlock;
                    if std::mem::take(errors) || *more {
                        self.undelivered(now, number);
                    }
                }
            }
        }
        received
    }

    /// Takes back what ICMP reported as not delivered.
    pub(super) fn undelivered(&mut self, now: Now, number: usize) {
        for _ in 0..64 {
            let Port::Datagram { socket, .. } = &self.ports[number] else { return };
            let Some(bytes) = failed_datagram(socket, &mut self.buffer).map(Box::<[u8]>::from) else { return };
            // The kernel tells it to any of the sockets that share the port.
            self.handle_undeliverable(now, &bytes);
        }
    }

    pub(super) fn connections(&mut self, now: Now) -> usize {
        self.full_reads = false;
        let mut received = 0;
        // Each connection gets one read a round, so that none starves the others.
        for _ in 0..self.readable.len() {
            let Some(slot) = self.readable.pop_front() else { break };
            let mut buffer = std::mem::take(&mut self.buffer);
            let mut messages: Vec<(Hop, Box<[u8]>)> = Vec::new();
            match self.streams.read(slot, &mut buffer, &mut |hop, message| messages.push((*hop, message.into()))) {
                Reading::Empty => {}
                Reading::Some => self.readable.push_back(slot),
                Reading::Full => {
                    self.full_reads = true;
                    self.readable.push_back(slot);
                }
            }
            self.buffer = buffer;
            received += messages.len();
            for (hop, message) in messages {
                self.deliver(now, &hop, &message, false);
            }
            if let Some((hop, error)) = self.streams.unreadable.take() {
                received += 1;
                self.guarded(now, |edge| edge.handle_unreadable(now, &hop, error));
            }
        }
        received
    }
}
