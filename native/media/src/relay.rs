//! Sessions and their rows.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::command::{Command, Described, PortPair, Rules, SessionId, Side, StreamKind};
use crate::latch::Taken;
use crate::packet::{RtpHead, is_plausible, may_pass};
use crate::report::{Notice, SessionReport, SideReport, StreamReport};
use crate::row::{NOWHERE, Row};

/// Packets of others to one session before that is told.
const INTRUSIONS: u32 = 10;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The port to send it from: twice its pair's slot, and one more for RTCP.
    pub row: u32,
    /// Where to.
    pub to: SocketAddr,
}

/// What a relay has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Datagrams passed on.
    pub relayed: u64,
    /// Their bytes.
    pub octets: u64,
    /// Datagrams of somebody else than the port's far end.
    pub refused: u64,
    /// Datagrams that came before there was anywhere to send them, or while the far end is on hold.
    pub undirected: u64,
    /// Datagrams beyond what a port may pass on in a second.
    pub limited: u64,
    /// Sources that moved while their call went on.
    pub moved: u64,
    /// Sessions that fell silent.
    pub silent: u64,
}

#[derive(Debug)]
struct Stream {
    index: u8,
    pairs: [PortPair; 2],
    /// Whether each side sends or receives at all.
    active: [bool; 2],
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    rules: Rules,
    streams: SmallVec<[Stream; 1]>,
    changed: u64,
    intrusions: u32,
    /// Whether each side has said anything: while one has not, its silence means nothing.
    described: [bool; 2],
}

/// All sessions of one media worker.
#[derive(Debug, Default)]
pub struct Relay {
    rows: Vec<Row>,
    sessions: Vec<Option<Session>>,
    free: Vec<u32>,
    by_id: HashMap<SessionId, u32>,
    /// What was done.
    pub counts: RelayCounts,
    /// What is to be told.
    pub notices: Vec<Notice>,
    /// Pairs that are free again.
    pub freed: Vec<PortPair>,
}

impl Relay {
    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Carries out `command`. Time is in microseconds of any clock that does not go back.
    pub fn command(&mut self, now: u64, command: Command) {
        match command {
            Command::Describe { session, side, signalled, rules, streams } => self.describe(now, session, side, signalled, rules, &streams),
            Command::Close { session, report } => self.close(session, report),
            Command::Return(pair) => self.freed.push(pair),
        }
    }

    fn describe(&mut self, now: u64, id: SessionId, side: Side, signalled: IpAddr, rules: Rules, streams: &[Described]) {
        let place = self.open(now, id, rules);
        for described in streams {
            let Some(Some(session)) = self.sessions.get_mut(place as usize) else { return };
            (session.rules, session.changed) = (rules, now);
            session.described[side as usize] = true;
            let known = session.streams.iter_mut().find(|stream| stream.index == described.index);
            match known {
                Some(stream) => stream.active[side as usize] = described.active,
                None => {
                    let mut active = [true; 2];
                    active[side as usize] = described.active;
                    session.streams.push(Stream { index: described.index, pairs: described.pairs, active });
                    self.open_rows(place, described);
                }
            }
            let first = described.pairs[side as usize].slot * 2;
            for (row, expected) in [(first, described.expected.map(|both| both[0])), (first + 1, described.expected.map(|both| both[1]))] {
                if let Some(row) = self.rows.get_mut(row as usize) {
                    row.latch.expect(now, expected, signalled);
                    row.kind = described.kind;
                }
            }
            // What either side sends is what was agreed on, which the answer says: it comes after the offer.
            for pair in described.pairs {
                if let Some(row) = self.rows.get_mut(pair.slot as usize * 2) {
                    row.clock_rate = described.clock_rate.max(1);
                }
            }
        }
    }

    fn open(&mut self, now: u64, id: SessionId, rules: Rules) -> u32 {
        if let Some(place) = self.by_id.get(&id) {
            return *place;
        }
        let session = Session { id, rules, streams: SmallVec::new(), changed: now, intrusions: 0, described: [false; 2] };
        let place = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() as u32 - 1
        });
        self.sessions[place as usize] = Some(session);
        self.by_id.insert(id, place);
        place
    }

    fn open_rows(&mut self, place: u32, described: &Described) {
        let most = described.pairs.iter().map(|pair| pair.slot * 2 + 2).max().unwrap_or(0) as usize;
        if self.rows.len() < most {
            self.rows.resize_with(most, Row::free);
        }
        for side in Side::BOTH {
            let [own, other] = [side, side.other()].map(|side| described.pairs[side as usize].slot * 2);
            for control in [0, 1] {
                self.rows[(own + control) as usize] =
                    Row { out: other + control, session: place, side, kind: described.kind, control: control == 1, clock_rate: 8_000, ..Row::free() };
            }
        }
    }

    fn close(&mut self, id: SessionId, report: bool) {
        let place = self.by_id.remove(&id);
        let session = place.and_then(|place| self.sessions.get_mut(place as usize).and_then(Option::take));
        if let Some(place) = place {
            self.free.push(place);
        }
        let mut streams = Vec::new();
        for stream in session.iter().flat_map(|session| &session.streams) {
            if report {
                streams.push(StreamReport { index: stream.index, sides: Side::BOTH.map(|side| self.side_report(stream.pairs[side as usize])) });
            }
            for pair in stream.pairs {
                for row in [pair.slot * 2, pair.slot * 2 + 1] {
                    self.rows[row as usize] = Row::free();
                }
                self.freed.push(pair);
            }
        }
        if report {
            self.notices.push(Notice::Closed(SessionReport { session: id, streams }));
        }
        if self.by_id.is_empty() && self.sessions.capacity() > 1_024 {
            // A peak must not hold its memory for ever.
            (self.sessions, self.free) = (Vec::new(), Vec::new());
            self.by_id.shrink_to_fit();
        }
    }

    fn side_report(&self, pair: PortPair) -> SideReport {
        let (row, control) = (&self.rows[pair.slot as usize * 2], &self.rows[pair.slot as usize * 2 + 1]);
        let [jitter, most] = row.quality.jitter_milliseconds(row.clock_rate);
        SideReport {
            packets: row.packets,
            octets: row.octets,
            lost: row.quality.lost(),
            refused: row.refused + control.refused,
            jitter_milliseconds: jitter,
            most_jitter_milliseconds: most,
            mos: row.quality.mos(row.clock_rate),
            source: row.latch.source(),
        }
    }

    /// Where a datagram goes that came to `row`; `None` where it goes nowhere.
    pub fn packet(&mut self, now: u64, row: u32, source: SocketAddr, bytes: &[u8]) -> Option<Way> {
        let own = self.rows.get_mut(row as usize).filter(|row| row.session != NOWHERE)?;
        let rules = self.sessions.get(own.session as usize)?.as_ref()?.rules;
        let plausible = is_plausible(own.kind, bytes);
        match own.latch.take(now, source, rules.learning, rules.relearn_after, plausible) {
            Taken::Known => {}
            Taken::Learnt if own.packets > 0 => self.counts.moved += 1,
            Taken::Learnt => {}
            Taken::Late => {
                self.counts.undirected += 1;
                return None;
            }
            Taken::Refused if !own.latch.is_described() => {
                self.counts.undirected += 1;
                return None;
            }
            Taken::Refused => {
                own.refused += 1;
                let (session, side) = (own.session, own.side);
                self.refuse(session, side, source);
                return None;
            }
        }
        if !may_pass(own.kind, bytes) {
            own.refused += 1;
            self.counts.refused += 1;
            return None;
        }
        // What others send uses up nothing of it.
        if !own.paces(now, rules.packets_per_second) {
            self.counts.limited += 1;
            return None;
        }
        own.packets += 1;
        own.octets += bytes.len() as u64;
        if !own.control
            && own.kind != StreamKind::Datagrams
            && let Some(head) = RtpHead::read(bytes)
        {
            own.quality.take(now, &head, own.clock_rate);
        }
        let out = own.out;
        let Some(to) = self.rows.get(out as usize).and_then(|row| row.latch.target()) else {
            self.counts.undirected += 1;
            return None;
        };
        self.counts.relayed += 1;
        self.counts.octets += bytes.len() as u64;
        Some(Way { row: out, to })
    }

    fn refuse(&mut self, place: u32, side: Side, source: SocketAddr) {
        self.counts.refused += 1;
        let Some(Some(session)) = self.sessions.get_mut(place as usize) else { return };
        session.intrusions = session.intrusions.saturating_add(1);
        if session.intrusions == INTRUSIONS {
            self.notices.push(Notice::Intruder(session.id, side, source));
        }
    }

    /// Looks for sessions that have fallen silent; one that stays so is told again each time that its limit has passed.
    pub fn tick(&mut self, now: u64) {
        for session in self.sessions.iter_mut().flatten().filter(|session| session.described == [true; 2]) {
            // On hold where no stream has two sides that would talk.
            let held = session.streams.iter().all(|stream| stream.active != [true; 2]);
            let limit = if held { session.rules.hold_timeout } else { session.rules.timeout };
            if limit == 0 || now.saturating_sub(session.changed) < limit {
                continue;
            }
            let rows = session.streams.iter().flat_map(|stream| stream.pairs).flat_map(|pair| [pair.slot * 2, pair.slot * 2 + 1]);
            let heard = rows.filter_map(|row| self.rows.get(row as usize)).map(|row| row.latch.heard()).max().unwrap_or(0);
            if now.saturating_sub(heard) >= limit {
                session.changed = now;
                self.counts.silent += 1;
                self.notices.push(Notice::Silent(session.id));
            }
        }
    }
}
