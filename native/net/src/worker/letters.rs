//! What others ask of a worker.

use std::sync::atomic::Ordering;

use edge::BanChange;
use proto::Now;

use super::{MAILS, Worker};
use crate::mail::Mail;

impl Worker {
    pub(super) fn mail(&mut self, now: Now) -> usize {
        // The rest waits for the next round: others must not keep us from our own sockets.
        let mut count = 0;
        while count < MAILS
            && let Some(mail) = self.shared.posts[self.index].take()
        {
            count += 1;
            match mail {
                Mail::Message(hop, bytes) => self.deliver(now, &hop, &bytes, true),
                Mail::Send(hop, bytes) => self.send_stream(&hop, &bytes),
                Mail::Undeliverable(bytes) => self.guarded(now, |edge| edge.handle_undeliverable(now, &bytes)),
                Mail::Answer(answer) => self.guarded(now, |edge| edge.handle_answer(now, answer)),
                Mail::Link(link) => self.add_policy_link(*link),
                Mail::DrainLink(id) => {
                    self.policies.drain(id);
                    self.edge.set_policy_links(self.policies.taking());
                }
                Mail::Unlink(id) => {
                    self.policies.remove(id);
                    self.edge.set_policy_links(self.policies.taking());
                }
                Mail::Routing(routing) => self.edge.set_routing(routing),
                Mail::CloseListeners(numbers) => numbers.into_iter().for_each(|number| self.close_port(number)),
                Mail::Reload(reload) => {
                    self.open_ports(reload.bound);
                    self.stop_accepting(&reload.snapshot);
                    self.streams.set_limits(reload.snapshot.settings.limits.message());
                    self.tracing = reload.snapshot.settings.trace.memory_bytes > 0;
                    self.edge.set_snapshot(now, reload.snapshot);
                    if self.filters() {
                        self.filter();
                    }
                    if let Some(routes) = reload.routes {
                        self.edge.set_routing(routes);
                    }
                    reload.drain.into_iter().for_each(|id| self.policies.drain(id));
                    if let Some(media) = reload.media {
                        self.attach_media(media);
                    }
                    reload.links.into_iter().for_each(|link| self.policies.add(link));
                    self.edge.set_policy_links(self.policies.taking());
                }
                Mail::Calls(call_id, limit, reply) => {
                    // Whoever asked may have given up.
                    drop(reply.send(self.edge.live_calls(call_id.as_deref(), limit)));
                }
                Mail::EndCalls(call_id, reply) => {
                    let mut done = (0, 0);
                    self.guarded(now, |edge| done = edge.end_calls(now, &call_id));
                    if reply.send(done).is_err() {
                        log::debug!(target: "worker", "whoever wanted a call ended has given up waiting");
                    }
                }
                Mail::EndLimited(limit, key, reply) => {
                    let mut done = (0, 0);
                    self.guarded(now, |edge| done = edge.end_limited(now, &limit, &key));
                    // Whoever asked may have given up.
                    let _ = reply.send(done);
                }
                Mail::Reach(question) => {
                    let found = self.edge.look_up(now, &question.wanted);
                    if !self.shared.posts[usize::from(question.id.worker)].post(Mail::Reached(question.id, found)) {
                        self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Mail::MediaAnswer(answer) => self.guarded(now, |edge| edge.handle_media_answer(now, *answer)),
                Mail::Media(notice) => self.guarded(now, |edge| edge.handle_media(now, notice)),
                Mail::Reached(id, found) => self.guarded(now, |edge| edge.handle_reached(now, id, found)),
                Mail::Credentials(told) => self.guarded(now, |edge| edge.handle_credentials(now, &told.0, &told.1)),
                Mail::Shares(released) => self.guarded(now, |edge| edge.handle_shares(now, &released)),
                Mail::Location(aor, limit, reply) => {
                    // Whoever asked may have given up.
                    drop(reply.send(self.edge.location_rows(now, aor.as_deref(), limit)));
                }
                Mail::RemoveBindings(aor, contact, reply) => {
                    let mut count = 0;
                    self.guarded(now, |edge| count = edge.remove_bindings(now, &aor, contact.as_deref()));
                    let _ = reply.send(count);
                }
                Mail::Ban(source, seconds, reason, reply) => {
                    let mut change = BanChange::Full;
                    self.guarded(now, |edge| change = edge.ban(now, source, seconds, &reason));
                    let _ = reply.send(change);
                }
                Mail::BanWithOthers(source, seconds, reason, reply) => {
                    let mut added = false;
                    self.guarded(now, |edge| added = edge.ban_with_others(now, source, seconds, &reason));
                    let _ = reply.send(added);
                }
                Mail::Failures(told) => self.guarded(now, |edge| edge.raise_failures(now, &told)),
                Mail::Unban(source, reason, reply) => {
                    let mut removed = false;
                    self.guarded(now, |edge| removed = edge.unban(now, source, &reason));
                    let _ = reply.send(removed);
                }
                // Whoever asked may have given up.
                Mail::Source(source, reply) => drop(reply.send(self.edge.source_view(now, source))),
                Mail::Drain => self.edge.drain(),
                Mail::Stop => {
                    self.guarded(now, |edge| edge.refuse_unanswered(now));
                    self.stopping = true;
                }
            }
        }
        count
    }
}
