//! What is set of subscribers: who they are, where they are reached, and what keeps others from being them.

use std::collections::HashMap;
use std::net::IpAddr;

use proto::{Algorithm, RegistrarRules};
use serde::Deserialize;

use crate::peer::masked;
use crate::settings::{Forking, RouteSettings, SettingsError};

/// How users are reached who registered here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrarSettings {
    /// Domains whose users register here, in lower case.
    pub domains: Vec<String>,
    /// Other names of users: `user@domain` each, alias and address of record. They are kept once, in the snapshot.
    pub aliases: Vec<(String, String)>,
    /// What becomes of their registrations.
    pub mode: RegistrarMode,
    /// Asked of a core for its bindings, so that most refreshes need not go there; 0: each one goes.
    pub upstream_expires_seconds: u32,
    /// The rules of all domains that have none of their own.
    pub rules: DomainRules,
    /// Those of the others, by their names in lower case.
    pub rules_of: HashMap<String, DomainRules>,
    /// Whether bindings of the same preference are tried at once.
    pub forking: Forking,
    /// Addresses of record at once, over all workers.
    pub records: usize,
    /// Whether bindings are written to the database.
    pub persist: bool,
    /// How often what changed is written, and how many seconds a refresh may wait for that.
    pub write_seconds: u32,
    /// Removals that wait to be written, per worker.
    pub write_queue: usize,
    /// Contacts that are refused.
    pub contacts: ContactSettings,
    /// What keeps the way to phones open.
    pub keep_alive: KeepAliveSettings,
}

/// What holds for the registrations of a domain.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainRules {
    /// Granted where none is asked for.
    pub default_expires_seconds: u32,
    /// Granted at least.
    pub min_expires_seconds: u32,
    /// Granted at most.
    pub max_expires_seconds: u32,
    /// Whether one that asks for less than the least gets the least; else it is refused with 423.
    pub raise_short: bool,
    /// How many percent a grant may be shorter.
    pub spread_percent: u32,
    /// Bindings of one address of record.
    pub max_contacts: usize,
    /// Whether the oldest binding makes room for one too many.
    pub replace_oldest: bool,
    /// Whether a new contact takes the place of one with the same Call-ID.
    pub same_call_id_replaces: bool,
    /// Whether `Alice` and `alice` are two.
    pub case_sensitive: bool,
}

/// What becomes of registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrarMode {
    /// They are kept here.
    Keep,
    /// They go to the core, with a Path that leads back here (RFC 3327).
    Path,
    /// They go to the core, with a Contact that leads back here.
    Contact,
}

/// What is done for phones behind a NAT.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatSettings {
    /// By what they are known.
    pub tests: Vec<String>,
    /// Whether their Contacts are marked, so that requests within a dialog find back to them.
    pub repair_contact: bool,
    /// Whether descriptions of theirs whose media is not relayed say the address that they are seen at.
    pub repair_description: bool,
}

impl RegistrarSettings {
    fn of_domain(&self, domain: &[u8]) -> &DomainRules {
        if self.rules_of.is_empty() {
            return &self.rules;
        }
        let own = std::str::from_utf8(domain).ok().and_then(|domain| self.rules_of.get(domain.to_ascii_lowercase().as_str()));
        own.unwrap_or(&self.rules)
    }

    /// Whether users of a domain have a case.
    pub(crate) fn is_case_sensitive(&self, domain: &[u8]) -> bool {
        self.of_domain(domain).case_sensitive
    }

    /// The rules for the bindings of `aor`.
    pub(crate) fn rules_for(&self, aor: &[u8]) -> RegistrarRules {
        let rules = self.of_domain(aor.iter().rposition(|byte| *byte == b'@').and_then(|at| aor.get(at + 1..)).unwrap_or_default());
        RegistrarRules {
            default_expires: rules.default_expires_seconds,
            min_expires: rules.min_expires_seconds,
            max_expires: rules.max_expires_seconds,
            raise_short: rules.raise_short,
            spread_percent: rules.spread_percent,
            max_contacts: rules.max_contacts,
            replace_oldest: rules.replace_oldest,
            same_call_id_replaces: rules.same_call_id_replaces,
        }
    }
}

/// Which contacts nobody may register.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactSettings {
    /// Networks that no Contact may lie in: address and length of the prefix.
    pub forbidden: Vec<(IpAddr, u8)>,
    /// Networks whose addresses are taken from a phone there only.
    pub private: Vec<(IpAddr, u8)>,
    /// Whether names are looked up.
    pub resolve: bool,
    /// The answer to whoever tries.
    pub status_code: u16,
    /// And its text.
    pub reason_phrase: String,
    /// Contacts of one request.
    pub most: usize,
}

/// What keeps the way to phones open.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepAliveSettings {
    /// `off`, `crlf` or `options`.
    pub method: String,
    /// Between two to the same phone.
    pub interval_seconds: u32,
    /// Whether only phones behind a NAT get them.
    pub natted_only: bool,
    /// How many OPTIONS in a row may stay unanswered before the binding is removed; 0 removes none.
    pub most_lost: u8,
    /// Answers to OPTIONS that do not count as alive.
    pub dead_codes: Vec<u16>,
}

/// How subscribers are known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticationSettings {
    /// The attribute that lists numbers which an account may call from besides its own user; empty for none.
    pub caller_numbers: String,
    /// The realm; empty for the domain that the request is of.
    pub realm: String,
    /// Algorithms that are offered.
    pub algorithms: Vec<String>,
    /// Whether `auth-int` is offered beside `auth`.
    pub protect_body: bool,
    /// How long a nonce may be answered.
    pub nonce_seconds: u32,
    /// Nonces in use at once, per worker.
    pub nonces: usize,
    /// Credentials kept, per worker.
    pub credentials: usize,
    /// How long credentials are taken for right.
    pub fresh_seconds: u32,
    /// How long they are used where the database is silent.
    pub stale_seconds: u32,
    /// Longest wait for credentials.
    pub deadline_milliseconds: u64,
    /// Requests that wait for credentials or names at once, per worker.
    pub waiting: usize,
    /// What is done against guessing.
    pub attacks: AttackSettings,
}

/// Guessing of passwords and users.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackSettings {
    /// Failures are counted in a window of so many seconds from the first one on.
    pub window_seconds: u32,
    /// Failures of one source as one user, after which it is refused as this user.
    pub pair_failures: u32,
    /// Failures as one user from anywhere, after which only sources that it came from before are heard.
    pub user_failures: u32,
    /// Failures of one source, after which it is banned.
    pub source_failures: u32,
    /// For so long.
    pub ban_seconds: u32,
    /// How long a source counts as one that a user came from.
    pub known_seconds: u32,
    /// Keys that are counted at once.
    pub keys: usize,
    /// Sources that are banned at once.
    pub bans: usize,
    /// Networks that are never counted.
    pub exempt: Vec<(IpAddr, u8)>,
}

/// The same with everything looked up once.
pub(crate) struct Subscribers {
    pub(crate) algorithms: Vec<Algorithm>,
    /// Addresses of record by their other names.
    pub(crate) aliases: HashMap<Box<[u8]>, Box<[u8]>>,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) fresh: u64,
    pub(crate) stale: u64,
    pub(crate) nonce_age: u64,
    pub(crate) deadline: u64,
}

/// How the way to phones is kept open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    Off,
    /// RFC 5626 section 4.4.1 writes two line ends on connections; over UDP they only open the way.
    LineEnds,
    Options,
}

impl Subscribers {
    pub(crate) fn new(settings: &mut RouteSettings) -> Result<Option<Self>, SettingsError> {
        let authentication = &settings.authentication;
        let Some(registrar) = &mut settings.registrar else { return Ok(None) };
        let aliases = std::mem::take(&mut registrar.aliases);
        let registrar = &*registrar;
        let name = |text: String| canonical(text.as_bytes(), Some(registrar)).into_boxed_slice();
        let aliases = aliases.into_iter().map(|(alias, aor)| (name(alias), name(aor))).collect();
        let fault = |path: &str, problem, value: &str| SettingsError::Value { path: path.to_owned(), problem, value: value.to_owned() };
        let algorithm = |name: &String| match Algorithm::from_bytes(name.as_bytes()) {
            Some((algorithm, false)) => Ok(algorithm),
            _ => Err(fault("authentication.algorithms", "no such algorithm", name)),
        };
        let mut algorithms = authentication.algorithms.iter().map(algorithm).collect::<Result<Vec<_>, _>>()?;
        // The strongest first (RFC 8760 section 2.4).
        algorithms.sort_by_key(|algorithm| *algorithm as u8);
        algorithms.dedup();
        let keep_alive = match registrar.keep_alive.method.as_str() {
            "off" => KeepAlive::Off,
            "crlf" => KeepAlive::LineEnds,
            "options" => KeepAlive::Options,
            other => return Err(fault("registrar.keep_alive.method", "no such method", other)),
        };
        Ok(Some(Self {
            algorithms,
            aliases,
            keep_alive,
            fresh: proto::seconds(u64::from(authentication.fresh_seconds)),
            stale: proto::seconds(u64::from(authentication.stale_seconds)),
            nonce_age: proto::seconds(u64::from(authentication.nonce_seconds)),
            deadline: proto::milliseconds(authentication.deadline_milliseconds),
        }))
    }
}

/// An address of record as they are compared: `user@domain` with the domain, and maybe the user, in lower case.
pub(crate) fn canonical(aor: &[u8], registrar: Option<&RegistrarSettings>) -> Vec<u8> {
    let mut name = aor.to_vec();
    let at = name.iter().rposition(|byte| *byte == b'@').unwrap_or(0);
    let sensitive = registrar.is_some_and(|registrar| registrar.is_case_sensitive(name.get(at + 1..).unwrap_or_default()));
    name[if sensitive { at } else { 0 }..].make_ascii_lowercase();
    name
}

/// Whether `ip` lies in one of `networks`.
pub(crate) fn in_networks(networks: &[(IpAddr, u8)], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|(network, length)| network.is_ipv4() == ip.is_ipv4() && masked(*network, *length) == masked(ip, *length))
}

#[cfg(test)]
mod tests {
    use super::in_networks;

    #[test]
    fn an_address_lies_in_networks_of_its_own_family_only() {
        let networks = [("10.0.0.0".parse().unwrap(), 8), ("2001:db8::".parse().unwrap(), 32), ("192.0.2.7".parse().unwrap(), 32)];
        for (text, inside) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:9::1", true),
            ("2001:db9::1", false),
            ("::ffff:10.0.0.1", true),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
        ] {
            assert_eq!(in_networks(&networks, text.parse().unwrap()), inside, "{text}");
        }
        assert!(in_networks(&[("0.0.0.0".parse().unwrap(), 0)], "203.0.113.1".parse().unwrap()));
    }
}
