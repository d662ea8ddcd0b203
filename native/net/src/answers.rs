//! What names last led to: for when a name server is silent, or more is asked than may be asked at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use edge::{Address, Question};
use syntax::Transport;

/// A name as a URI asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked(String, Option<u16>, Option<Transport>);

impl From<&Question> for Asked {
    fn from(question: &Question) -> Self {
        Self(question.host.to_ascii_lowercase(), question.port, question.transport)
    }
}

/// The last good answers, for `keep` at most.
pub(crate) struct LastAnswers {
    known: HashMap<Asked, (Vec<Address>, Instant)>,
    limit: usize,
    keep: Duration,
}

impl LastAnswers {
    pub(crate) fn new(limit: usize, keep: Duration) -> Self {
        Self { known: HashMap::new(), limit, keep }
    }

    /// What `asked` led to not too long before `now`; nothing where it did not.
    pub(crate) fn get(&self, asked: &Asked, now: Instant) -> Vec<Address> {
        self.known.get(asked).filter(|(_, at)| now.duration_since(*at) < self.keep).map_or_else(Vec::new, |(addresses, _)| addresses.clone())
    }

    /// Notes a good answer; where the table is full of others that are still good, it is not kept.
    pub(crate) fn note(&mut self, asked: Asked, addresses: &[Address], now: Instant) {
        if self.known.len() >= self.limit && !self.known.contains_key(&asked) {
            let keep = self.keep;
            self.known.retain(|_, (_, at)| now.duration_since(*at) < keep);
            if self.known.len() >= self.limit {
                return;
            }
        }
        self.known.insert(asked, (addresses.to_vec(), now));
    }

    /// `asked` leads nowhere any more.
    pub(crate) fn forget(&mut self, asked: &Asked) {
        self.known.remove(asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_so_long_and_so_many_of_them() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let name = |host: &str| Asked(host.to_owned(), None, None);
        let addresses = vec![Address { transport: Transport::Udp, address: "192.0.2.1:5060".parse().unwrap() }];
        let mut answers = LastAnswers::new(1, Duration::from_secs(60));
        answers.note(name("a"), &addresses, start);
        answers.note(name("b"), &addresses, after(59));
        assert_eq!((answers.get(&name("a"), after(59)), answers.get(&name("b"), after(59))), (addresses.clone(), Vec::new()));
        answers.note(name("b"), &addresses, after(61));
        assert_eq!((answers.get(&name("a"), after(61)), answers.get(&name("b"), after(61))), (Vec::new(), addresses));
        answers.forget(&name("b"));
        assert!(answers.get(&name("b"), after(62)).is_empty());
    }
}
