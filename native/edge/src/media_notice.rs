//! What media workers tell: silence, intruders, and at the end what a call's media was like.

use media::{Notice, SessionReport, SideReport};
use proto::{Key, Now, seconds};
use smallvec::SmallVec;

use crate::call::Call;
use crate::edge::Edge;
use crate::event::EventKind;
use crate::media_session::WaitingRecord;
use crate::record::{CallRecord, MediaRecord, MediaSideRecord};

/// How long a record waits for what its media was like.
const PATIENCE_SECONDS: u64 = 2;

impl Edge {
    /// Takes what a media worker tells.
    pub fn handle_media(&mut self, now: Now, notice: Notice) {
        match notice {
            Notice::Closed(report) => self.take_report(&report),
            Notice::Silent(id) => {
                let Some(key) = self.media.calls.get(&id).copied() else { return };
                self.media_silent(now, key);
            }
            Notice::Intruder(id, side, source) => {
                let Some((key, call)) = self.media.calls.get(&id).and_then(|key| Some((*key, self.calls.get(*key)?))) else { return };
                let values = vec![call_id(call).into(), side_name(side as usize).into(), source.ip().to_string().into(), u64::from(source.port()).into()];
                self.tell(now, EventKind::MediaIntrusion, |_| values);
                if self.may_log(now) {
                    let name = self.name_of_call(key);
                    log::warn!(target: "media", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "somebody else sends to the ports of a call: {}", self.shown(source));
                }
            }
        }
    }

    fn media_silent(&mut self, now: Now, key: Key) {
        let ends = self.snapshot.settings.media.as_ref().is_some_and(|media| media.end_calls);
        // While it rings nobody need say anything.
        let Some(call) = self.calls.get(key).filter(|call| call.answered.is_some()) else { return };
        let texts = [call_id(call), tag(call.texts.caller_tag()), tag(callee_tag(call))];
        let name = self.name_of_call(key);
        log::info!(target: "media", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "no media from either side");
        let ended = ends && self.end_one(now, key, "Media timeout");
        if ends && !ended {
            log::warn!(target: "media", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "a call cannot be ended: one side gave no Contact");
        }
        let [call_id, caller_tag, callee_tag] = texts;
        self.tell(now, EventKind::MediaTimeout, |_| vec![call_id.into(), caller_tag.into(), callee_tag.into(), u64::from(ended).into()]);
    }

    /// Closes the media of a call that is over; true where its record waits for what that was like, and a copy of it is kept.
    pub(crate) fn close_media(&mut self, now: Now, call: &mut Call, record: &CallRecord) -> bool {
        let mut sessions: SmallVec<[(media::SessionId, usize); 1]> = SmallVec::new();
        for session in std::mem::take(&mut call.media) {
            let (id, attempt, wanted) = (session.id, session.attempt, session.offers.negotiated);
            if self.close_session(session, wanted) {
                sessions.push((id, attempt));
            }
        }
        if sessions.is_empty() || self.media.waiting.len() >= self.snapshot.settings.limits.calls {
            return false;
        }
        for (id, _) in &sessions {
            self.media.records.insert(*id, call.number);
        }
        let waiting = WaitingRecord {
            record: record.clone(),
            from_peer: call.from_peer,
            source: call.arrival.address,
            sessions,
            deadline: now.moment + seconds(PATIENCE_SECONDS),
        };
        self.media.waiting.insert(call.number, waiting);
        true
    }

    fn take_report(&mut self, report: &SessionReport) {
        let Some(number) = self.media.records.remove(&report.session) else { return };
        let masks = self.snapshot.settings.mask_identities;
        let Some(waiting) = self.media.waiting.get_mut(&number) else { return };
        let Some(place) = waiting.sessions.iter().position(|(id, _)| *id == report.session) else { return };
        let (_, attempt) = waiting.sessions.swap_remove(place);
        waiting.record.media.extend(report.streams.iter().map(|stream| {
            let [caller, callee] = stream.sides.map(|side| told(&side, masks));
            MediaRecord { attempt, stream: stream.index, caller, callee }
        }));
        if waiting.sessions.is_empty() {
            self.release_record(number);
        }
    }

    fn release_record(&mut self, number: u64) {
        let Some(waiting) = self.media.waiting.remove(&number) else { return };
        for (id, _) in &waiting.sessions {
            self.media.records.remove(id);
        }
        self.tell_final(&waiting.record, waiting.from_peer, waiting.source);
        self.out.records.push(waiting.record);
    }

    /// Records wait no longer for media workers than they should; with `all` not at all.
    pub fn release_records(&mut self, now: Now, all: bool) {
        let due: Vec<u64> = self.media.waiting.iter().filter(|(_, waiting)| all || waiting.deadline <= now.moment).map(|(number, _)| *number).collect();
        for number in due {
            self.counters.media_reports_missing.add();
            self.release_record(number);
        }
    }

    /// Whether records wait for what media workers have to tell.
    pub fn waits_for_media(&self) -> bool {
        !self.media.waiting.is_empty()
    }
}

fn call_id(call: &Call) -> String {
    String::from_utf8_lossy(call.texts.call_id()).into_owned()
}

fn tag(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn callee_tag(call: &Call) -> &[u8] {
    call.dialogs.iter().find(|dialog| dialog.state == proto::DialogState::Confirmed).map_or(&[], |dialog| &dialog.callee_tag)
}

fn side_name(side: usize) -> &'static str {
    if side == 0 { "caller" } else { "callee" }
}

fn told(side: &SideReport, masks: bool) -> MediaSideRecord {
    let rounded = |number: f32| (f64::from(number) * 100.0).round() / 100.0;
    MediaSideRecord {
        packets: side.packets,
        octets: side.octets,
        lost: side.lost,
        refused: side.refused,
        jitter_milliseconds: rounded(side.jitter_milliseconds),
        most_jitter_milliseconds: rounded(side.most_jitter_milliseconds),
        mos: side.mos.map(rounded),
        source: side.source.map_or_else(String::new, |source| if masks { "(masked)".to_owned() } else { source.to_string() }),
    }
}
