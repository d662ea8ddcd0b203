//! A media worker whose packets a test hands in itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use edge::MediaPorts;
use media::{Command, Notice, PortPair, Relay};

/// The first port.
const FIRST: u16 = 30_000;

#[derive(Default)]
struct State {
    relay: Relay,
    free: Vec<u32>,
    most: u32,
    made: u32,
    hangs: bool,
    behind: bool,
    addresses: Vec<IpAddr>,
}

/// Ports of one media worker, and what it does with them. Clones are the same one.
#[derive(Clone, Default)]
pub struct MediaWorker(Arc<Mutex<State>>);

impl MediaWorker {
    /// One that has so many pairs of ports.
    pub fn new(pairs: u32) -> Self {
        let worker = Self::default();
        worker.with(|state| state.most = pairs);
        worker
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It has so many pairs from now on.
    pub fn limit(&self, pairs: u32) {
        self.with(|state| state.most = pairs);
    }

    /// From now on it does nothing any more, or does again.
    pub fn hang(&self, hangs: bool) {
        self.with(|state| state.hangs = hangs);
    }

    /// From now on it does not keep up, or does again.
    pub fn fall_behind(&self, behind: bool) {
        self.with(|state| state.behind = behind);
    }

    /// Pairs that are taken.
    pub fn taken(&self) -> usize {
        self.with(|state| state.made as usize - state.free.len())
    }

    /// Sessions that there are.
    pub fn sessions(&self) -> usize {
        self.with(|state| state.relay.len())
    }

    /// Carries commands out and gives back what there is to tell.
    pub fn work(&self, now: u64, commands: impl Iterator<Item = Command>) -> Vec<Notice> {
        self.with(|state| {
            if state.hangs {
                return Vec::new();
            }
            commands.for_each(|command| state.relay.command(now, command));
            let freed: Vec<PortPair> = state.relay.freed.drain(..).collect();
            state.free.extend(freed.iter().map(|pair| pair.slot));
            std::mem::take(&mut state.relay.notices)
        })
    }

    /// Looks for sessions that fell silent.
    pub fn tick(&self, now: u64) -> Vec<Notice> {
        self.with(|state| {
            state.relay.tick(now);
            std::mem::take(&mut state.relay.notices)
        })
    }

    /// A datagram from `source` comes to `port`: the port that it leaves by and where it goes.
    pub fn packet(&self, now: u64, port: u16, source: SocketAddr, bytes: &[u8]) -> Option<(u16, SocketAddr)> {
        let row = u32::from(port.checked_sub(FIRST)?);
        self.with(|state| state.relay.packet(now, row, source, bytes)).map(|way| (FIRST + way.row as u16, way.to))
    }

    /// The local addresses that ports were taken at, in order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.with(|state| state.addresses.clone())
    }
}

impl MediaPorts for MediaWorker {
    fn workers(&self) -> u8 {
        1
    }

    fn accepts(&self, _worker: u8) -> bool {
        self.with(|state| !state.behind)
    }

    fn has(&self, port: u16) -> bool {
        self.with(|state| (FIRST..FIRST + 2 * state.most as u16).contains(&port))
    }

    fn take(&mut self, _worker: u8, address: IpAddr) -> Option<PortPair> {
        self.with(|state| {
            let fresh = (state.free.is_empty() && state.made < state.most).then_some(state.made);
            state.made += u32::from(fresh.is_some());
            let slot = state.free.pop().or(fresh)?;
            state.addresses.push(address);
            Some(PortPair { slot, port: FIRST + slot as u16 * 2 })
        })
    }
}
