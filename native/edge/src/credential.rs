//! Credentials: kept by each worker that needs them for so long as the file says, asked for where they are not.

use std::collections::HashMap;

use proto::{Algorithm, DigestText, Moment, Now, ha1};
use smallvec::SmallVec;

use crate::account_attributes::Attributes;
use crate::edge::Edge;

/// What a worker wants to know of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialQuestion {
    /// The worker that asks.
    pub worker: u8,
    /// The user part.
    pub user: String,
    /// The domain.
    pub domain: String,
    /// The realm that a clear password is hashed with.
    pub realm: String,
    /// The name that it is hashed with, as the phone gives it (RFC 7616 section 3.4.2): with or without its domain.
    pub named: String,
}

/// The same, as a request says it.
pub(crate) struct Wanted<'a> {
    pub(crate) user: &'a [u8],
    pub(crate) domain: &'a [u8],
    pub(crate) realm: &'a [u8],
    pub(crate) named: &'a [u8],
}

/// What the database says of a user.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialAnswer {
    /// The clear password; empty where only hashes are kept. HA1 by MD5, SHA-256 and SHA-512-256 as text, each empty where it is not there.
    /// Names and values of what else is known of the account.
    Found(String, [String; 3], Vec<(String, String)>),
    /// There is no such user.
    Unknown,
    /// The database cannot be asked.
    Unavailable,
}

impl std::fmt::Debug for CredentialAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Found(..) => "Found(..)",
            Self::Unknown => "Unknown",
            Self::Unavailable => "Unavailable",
        })
    }
}

/// HA1 for each algorithm that there is one for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ha1s(SmallVec<[(Algorithm, DigestText); 1]>);

impl Ha1s {
    pub(crate) fn get(&self, algorithm: Algorithm) -> Option<&DigestText> {
        self.0.iter().find(|(own, _)| *own == algorithm).map(|(_, text)| text)
    }
}

struct Entry {
    /// `None` for a user that there is not.
    ha1s: Option<Ha1s>,
    attributes: Attributes,
    fetched: Moment,
    /// When the database was asked last, whatever came of it.
    tried: Moment,
    /// Whether it was asked for anew.
    asked: bool,
}

/// How credentials are known.
pub(crate) enum Known {
    /// As they are.
    User(Ha1s, Attributes),
    /// There is no such user.
    Nobody,
}

/// Credentials by a hash of user, domain and realm. Users that there are not have a table of their own, so that guesses push out no one.
#[derive(Default)]
pub(crate) struct CredentialCache {
    users: HashMap<u128, Entry>,
    nobodies: HashMap<u128, Entry>,
    /// Whether the database did not answer when it was asked last.
    silent: bool,
}

impl CredentialCache {
    pub(crate) fn len(&self) -> usize {
        self.users.len() + self.nobodies.len()
    }

    /// What is known under `key` at `now`, and whether it should be asked for anew. What is not fresh serves only while the database is silent.
    fn get(&mut self, key: u128, now: Moment, fresh: u64, stale: u64) -> Option<(Known, bool)> {
        let entry = match self.users.get_mut(&key) {
            Some(entry) => entry,
            None => self.nobodies.get_mut(&key)?,
        };
        let age = now.since(entry.fetched);
        // Those who are nobody are kept like others, so that the time of an answer tells no one from them.
        if age > stale.max(fresh) || (age > fresh && entry.tried != now && !self.silent) {
            return None;
        }
        // Ahead of its time, so that whoever comes often never waits.
        let ask = age > fresh / 2 && !std::mem::replace(&mut entry.asked, true);
        Some((entry.ha1s.as_ref().map_or(Known::Nobody, |ha1s| Known::User(ha1s.clone(), entry.attributes.clone())), ask))
    }

    /// Whether the database was asked about `key` just now.
    pub(crate) fn is_tried(&self, key: u128, now: Moment) -> bool {
        self.users.get(&key).or_else(|| self.nobodies.get(&key)).is_some_and(|entry| entry.tried == now)
    }

    fn put(&mut self, key: u128, ha1s: Option<Ha1s>, attributes: Attributes, now: Moment, limit: usize) {
        let (mine, other) = if ha1s.is_some() { (&mut self.users, &mut self.nobodies) } else { (&mut self.nobodies, &mut self.users) };
        other.remove(&key);
        self.silent = false;
        let limit = if ha1s.is_some() { limit } else { limit / 4 }.max(16);
        if mine.len() >= limit && !mine.contains_key(&key) {
            // Any sixteenth of them goes: nothing would have to be kept in order for that.
            let mut left = limit / 16 + 1;
            mine.retain(|_, _| {
                left = left.saturating_sub(1);
                left == 0
            });
        }
        mine.insert(key, Entry { ha1s, attributes, fetched: now, tried: now, asked: false });
    }

    /// The database is silent: what is known is asked for again later. Whether there is something, and it holds until then.
    fn ask_later(&mut self, key: u128, now: Moment, stale: u64) -> bool {
        // What is waited for may be no credentials at all.
        let Some(entry) = self.users.get_mut(&key).or_else(|| self.nobodies.get_mut(&key)) else { return false };
        self.silent = true;
        (entry.asked, entry.tried) = (false, now);
        now.since(entry.fetched) <= stale
    }

    pub(crate) fn clear(&mut self) {
        self.users.clear();
        self.nobodies.clear();
    }
}

impl Edge {
    pub(crate) fn credential_key(&self, wanted: &Wanted<'_>) -> u128 {
        proto::keyed_hash(&self.options.process_secret, &[b"credential", wanted.named, wanted.domain, wanted.realm])
    }

    /// What is known of a user; `None` where it must be waited for.
    pub(crate) fn credentials(&mut self, now: Now, key: u128, wanted: &Wanted<'_>) -> Option<Known> {
        let (fresh, stale) = self.snapshot.subscribers.as_ref().map_or((0, 0), |subscribers| (subscribers.fresh, subscribers.stale));
        let (known, ask) = self.users.credentials.get(key, now.moment, fresh, stale)?;
        if ask {
            self.ask_credentials(wanted);
        }
        Some(known)
    }

    pub(crate) fn ask_credentials(&mut self, wanted: &Wanted<'_>) {
        self.counters.credential_questions.add();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Wanted { user, domain, realm, named } = wanted;
        self.out.credentials.push(CredentialQuestion {
            worker: self.options.worker,
            user: text(user),
            domain: text(domain),
            realm: text(realm),
            named: text(named),
        });
    }

    /// Takes what the database says of a user, and takes up what waited for it.
    pub fn handle_credentials(&mut self, now: Now, question: &CredentialQuestion, answer: &CredentialAnswer) {
        let CredentialQuestion { user, domain, realm, named, .. } = question;
        let wanted = Wanted { user: user.as_bytes(), domain: domain.as_bytes(), realm: realm.as_bytes(), named: named.as_bytes() };
        let key = self.credential_key(&wanted);
        let limit = self.snapshot.settings.authentication.credentials;
        let ha1s = match answer {
            CredentialAnswer::Unavailable => {
                self.counters.credential_failures.add();
                self.users.credentials.silent = true;
                let known = self.not_to_be_had(now, key);
                return self.unpark(now, key, known);
            }
            CredentialAnswer::Unknown => None,
            CredentialAnswer::Found(password, stored, _) => Some(self.ha1s(wanted.named, wanted.realm, password, stored)),
        };
        let attributes = if let CredentialAnswer::Found(_, _, pairs) = answer { Attributes::new(pairs) } else { Attributes::default() };
        self.users.credentials.put(key, ha1s, attributes, now.moment, limit);
        self.unpark(now, key, true);
    }

    /// The database does not say what it knows of a user: whether what was known before is to serve.
    pub(crate) fn not_to_be_had(&mut self, now: Now, key: u128) -> bool {
        let stale = self.snapshot.subscribers.as_ref().map_or(0, |subscribers| subscribers.stale.max(subscribers.fresh));
        self.users.credentials.ask_later(key, now.moment, stale)
    }

    fn ha1s(&self, user: &[u8], realm: &[u8], password: &str, stored: &[String; 3]) -> Ha1s {
        let offered = self.snapshot.subscribers.as_ref().map_or(&[][..], |subscribers| &subscribers.algorithms);
        let one = |algorithm: &Algorithm| {
            let text = match algorithm {
                Algorithm::Md5 => &stored[0],
                Algorithm::Sha256 => &stored[1],
                Algorithm::Sha512Trunc256 => &stored[2],
            };
            let computed = || (!password.is_empty()).then(|| ha1(*algorithm, user, realm, password.as_bytes()));
            DigestText::read(*algorithm, text.trim().as_bytes()).or_else(computed).map(|ha1| (*algorithm, ha1))
        };
        Ha1s(offered.iter().filter_map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stale_is_used_while_the_database_is_silent_only() {
        let at = |cache: &mut CredentialCache, moment| cache.get(1, Moment(moment), 10, 100).map(|(_, ask)| ask);
        let mut cache = CredentialCache::default();
        cache.put(1, Some(Ha1s::default()), Attributes::default(), Moment(0), 100);
        assert_eq!([5, 6, 7, 10, 11].map(|moment| at(&mut cache, moment)), [Some(false), Some(true), Some(false), Some(false), None]);
        assert!(!cache.ask_later(9, Moment(11), 100) && at(&mut cache, 11).is_none(), "something else did not come");
        assert!(cache.ask_later(1, Moment(50), 100) && cache.is_tried(1, Moment(50)) && !cache.is_tried(1, Moment(51)));
        assert_eq!([50, 51, 100, 101].map(|moment| at(&mut cache, moment)), [Some(true), Some(false), Some(false), None]);
        assert!(!cache.ask_later(1, Moment(101), 100) && !cache.ask_later(2, Moment(50), 100), "too old, and nobody");
        // It speaks again: what is old is asked for first.
        cache.put(2, None, Attributes::default(), Moment(60), 100);
        assert_eq!(at(&mut cache, 60), None);
    }

    #[test]
    fn nobody_is_kept_like_others() {
        let mut cache = CredentialCache::default();
        cache.put(1, None, Attributes::default(), Moment(0), 100);
        assert!(matches!(cache.get(1, Moment(10), 10, 100), Some((Known::Nobody, true))));
        assert!(cache.get(1, Moment(11), 10, 100).is_none() && cache.ask_later(1, Moment(11), 100));
        assert!(matches!(cache.get(1, Moment(12), 10, 100), Some((Known::Nobody, true))));
        assert!(cache.get(1, Moment(101), 10, 100).is_none());
    }

    #[test]
    fn guesses_push_out_no_user_and_the_tables_stay_within_their_bounds() {
        let mut cache = CredentialCache::default();
        (0..64).for_each(|key| cache.put(key, Some(Ha1s::default()), Attributes::default(), Moment(0), 64));
        (1_000..2_000).for_each(|key| cache.put(key, None, Attributes::default(), Moment(0), 64));
        assert!((0..64).all(|key| cache.get(key, Moment(0), 10, 100).is_some()));
        assert!(cache.nobodies.len() <= 16 && cache.len() <= 80);
        (64..1_000).for_each(|key| cache.put(key, Some(Ha1s::default()), Attributes::default(), Moment(0), 64));
        assert!(cache.users.len() <= 64);
    }
}
