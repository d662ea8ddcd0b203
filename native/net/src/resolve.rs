//! Where requests for a name go (RFC 3263): NAPTR, SRV, A and AAAA, asked on a thread of their own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use edge::{Address, Answer, HostName, Question};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use syntax::Transport;
use tokio::sync::{Semaphore, mpsc};

use crate::answers::{Asked, LastAnswers};
use crate::install::DnsSettings;
use crate::mail::{Mail, Post};

/// Questions that may come at once beyond those under way: each is answered from what is known, or refused.
const BURST: usize = 4_096;
/// Addresses given for one question, at most.
const ADDRESSES: usize = 64;

/// The way to the resolver's thread.
pub(crate) struct Resolver {
    questions: mpsc::Sender<Question>,
    posts: Vec<Arc<Post>>,
    /// The second of the last warning.
    warned: AtomicU64,
    started: Instant,
}

impl Resolver {
    /// Starts the thread; nobody waits longer than `patience` for an answer.
    pub(crate) fn start(settings: &DnsSettings, patience: Duration, posts: Vec<Arc<Post>>) -> io::Result<Self> {
        let (questions, inbox) = mpsc::channel(settings.questions + BURST);
        let resolver = build(settings)?;
        let answers = posts.clone();
        let settings = settings.clone();
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            crate::limits::block_signals();
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(serve(resolver, inbox, answers, settings, patience)),
                Err(error) => log::error!(target: "dns", "name resolution cannot run: {error}"),
            }
        })?;
        Ok(Self { questions, posts, warned: AtomicU64::new(u64::MAX), started: Instant::now() })
    }

    /// Asks; where too much is asked already, the answer is that there is nothing.
    pub(crate) fn ask(&self, question: Question) {
        if let Err(error) = self.questions.try_send(question) {
            let question = error.into_inner();
            let second = self.started.elapsed().as_secs();
            if self.warned.swap(second, Ordering::Relaxed) != second {
                log::warn!(target: "dns", "more names to look up than dns.questions allows: calls to them fail");
            }
            reply(&self.posts, Answer { id: question.id, host: question.host, addresses: Vec::new() });
        }
    }
}

fn reply(posts: &[Arc<Post>], answer: Answer) {
    if let Some(post) = posts.get(usize::from(answer.id.worker)) {
        // A worker whose mailbox is full lets the question's own deadline answer.
        post.post(Mail::Answer(answer));
    }
}

fn build(settings: &DnsSettings) -> io::Result<TokioResolver> {
    let mut builder = if settings.servers.is_empty() {
        TokioResolver::builder_tokio().map_err(io::Error::other)?
    } else {
        let server = |address: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            config
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), settings.servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = Duration::from_millis(settings.timeout_milliseconds);
    options.attempts = 2;
    options.cache_size = settings.cache_entries;
    options.edns0 = true;
    builder.build().map_err(io::Error::other)
}

/// The resolver, and whether a name server left it without an answer.
struct Lookups {
    resolver: Arc<TokioResolver>,
    silent: AtomicBool,
}

impl Lookups {
    /// Passes an answer on; that there are no such records is an answer too.
    fn heard<T>(&self, result: Result<T, NetError>) -> Option<T> {
        result.map_err(|error| self.silent.fetch_or(!error.is_no_records_found(), Ordering::Relaxed)).ok()
    }
}

async fn serve(resolver: TokioResolver, mut inbox: mpsc::Receiver<Question>, posts: Vec<Arc<Post>>, settings: DnsSettings, patience: Duration) {
    let resolver = Arc::new(resolver);
    let places = Arc::new(Semaphore::new(settings.questions));
    let last = Arc::new(Mutex::new(LastAnswers::new(settings.cache_entries as usize, Duration::from_secs(settings.stale_seconds))));
    while let Some(question) = inbox.recv().await {
        let asked = Asked::from(&question);
        // Names that nobody resolves may hold every place: those known to work need none.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let addresses = last.lock().map(|last| last.get(&asked, Instant::now())).unwrap_or_default();
            reply(&posts, Answer { id: question.id, host: question.host, addresses });
            continue;
        };
        let lookups = Lookups { resolver: Arc::clone(&resolver), silent: AtomicBool::new(false) };
        let (posts, last) = (posts.clone(), Arc::clone(&last));
        tokio::spawn(async move {
            // A zone may name hundreds of servers that never answer.
            let name = HostName { host: question.host.clone(), port: question.port, transport: question.transport };
            let found = tokio::time::timeout(patience, resolve(&lookups, &name, &question.offered)).await;
            drop(place);
            let silent = found.is_err() || lookups.silent.load(Ordering::Relaxed);
            let mut addresses = found.unwrap_or_default();
            if let Ok(mut last) = last.lock() {
                match (addresses.is_empty(), silent) {
                    (true, true) => addresses = last.get(&asked, Instant::now()),
                    (true, false) => last.forget(&asked),
                    (false, _) => last.note(asked, &addresses, Instant::now()),
                }
            }
            reply(&posts, Answer { id: question.id, host: question.host, addresses });
        });
    }
}

/// RFC 3263 section 4: transport, then port and hosts, then addresses, in the order to try them.
async fn resolve(lookups: &Lookups, name: &HostName, offered: &[Transport]) -> Vec<Address> {
    if let Some(port) = name.port {
        let transport = name.transport.unwrap_or(Transport::Udp);
        return hosts(lookups, &name.host, transport, port).await;
    }
    let mut services: Vec<(Transport, String)> = Vec::new();
    match name.transport {
        Some(transport) => services.push((transport, service_name(transport, &name.host))),
        None => {
            for (service, target) in naptr(lookups, &name.host).await {
                services.extend(transport_of(&service).filter(|t| offered.contains(t)).map(|t| (t, target)));
            }
            if services.is_empty() {
                let defaults = [Transport::Udp, Transport::Tcp].into_iter().filter(|t| offered.contains(t));
                services.extend(defaults.map(|t| (t, service_name(t, &name.host))));
            }
        }
    }
    let mut found = Vec::new();
    // Many records often name few hosts, and nobody tries more addresses than this.
    let mut known: HashMap<String, Vec<Address>> = HashMap::new();
    'services: for (transport, service) in services {
        for (host, port) in srv(lookups, &service).await {
            if found.len() >= ADDRESSES {
                break 'services;
            }
            let addresses = match known.get(&host) {
                Some(addresses) => addresses.clone(),
                None => hosts(lookups, &host, transport, port).await,
            };
            found.extend(addresses.iter().map(|a| Address { transport, address: SocketAddr::new(a.address.ip(), port) }));
            known.insert(host, addresses);
        }
    }
    if found.is_empty() {
        let transport = name.transport.unwrap_or(Transport::Udp);
        return hosts(lookups, &name.host, transport, transport.default_port()).await;
    }
    found
}

/// Where each of these names is now, over whatever transport; nothing for one that cannot be looked up. Waits for all of them, ten
/// seconds at most, on the thread that asks.
///
/// # Errors
/// Where name resolution cannot run at all.
pub fn look_up(settings: &DnsSettings, names: Vec<HostName>) -> io::Result<HashMap<HostName, Vec<Address>>> {
    let resolver = Arc::new(build(settings)?);
    let places = Arc::new(Semaphore::new(settings.questions));
    let deadline = Instant::now() + Duration::from_secs(10);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut asked = tokio::task::JoinSet::new();
        for name in names {
            let (lookups, places) = (Lookups { resolver: Arc::clone(&resolver), silent: AtomicBool::new(false) }, Arc::clone(&places));
            asked.spawn(async move {
                let looked = async {
                    let _place = places.acquire().await.ok()?;
                    Some(resolve(&lookups, &name, &[Transport::Udp, Transport::Tcp]).await)
                };
                let found = tokio::time::timeout_at(deadline.into(), looked).await;
                (name, found.ok().flatten().unwrap_or_default())
            });
        }
        Ok(asked.join_all().await.into_iter().collect())
    })
}

fn service_name(transport: Transport, host: &str) -> String {
    match transport {
        Transport::Udp => format!("_sip._udp.{host}"),
        Transport::Tls => format!("_sips._tcp.{host}"),
        Transport::Tcp | Transport::Ws | Transport::Wss | Transport::Sctp => format!("_sip._tcp.{host}"),
    }
}

fn transport_of(service: &str) -> Option<Transport> {
    match service.to_ascii_uppercase().as_str() {
        "SIP+D2U" => Some(Transport::Udp),
        "SIP+D2T" => Some(Transport::Tcp),
        "SIPS+D2T" => Some(Transport::Tls),
        _ => None,
    }
}

/// Service and replacement of every usable NAPTR record, in order.
async fn naptr(lookups: &Lookups, host: &str) -> Vec<(String, String)> {
    let Some(answer) = lookups.heard(lookups.resolver.lookup(absolute(host), RecordType::NAPTR).await) else { return Vec::new() };
    let mut records: Vec<(u16, u16, String, String)> = Vec::new();
    for record in answer.answers() {
        if let RData::NAPTR(naptr) = &record.data
            && naptr.flags.eq_ignore_ascii_case(b"s")
        {
            let service = String::from_utf8_lossy(&naptr.services).into_owned();
            records.push((naptr.order, naptr.preference, service, naptr.replacement.to_string()));
        }
    }
    records.sort();
    records.into_iter().map(|(_, _, service, target)| (service, target)).collect()
}

/// Hosts and ports of a service, by priority and weight.
async fn srv(lookups: &Lookups, name: &str) -> Vec<(String, u16)> {
    let Some(answer) = lookups.heard(lookups.resolver.lookup(absolute(name), RecordType::SRV).await) else { return Vec::new() };
    let mut records = Vec::new();
    for record in answer.answers() {
        if let RData::SRV(srv) = &record.data {
            // A lone dot says that the service is decidedly not there (RFC 2782).
            if !srv.target.is_root() {
                records.push(Weighted { priority: srv.priority, weight: srv.weight, host: srv.target.to_string(), port: srv.port });
            }
        }
    }
    by_weight(records, || getrandom_u32() as f64 / f64::from(u32::MAX)).into_iter().map(|w| (w.host, w.port)).collect()
}

fn getrandom_u32() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState is keyed anew: enough for sharing out load, and no more is asked of it.
    RandomState::new().hash_one(0u8) as u32
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Weighted {
    priority: u16,
    weight: u16,
    host: String,
    port: u16,
}

/// RFC 2782: lowest priority first; among equals, chance in proportion to weight.
fn by_weight(mut records: Vec<Weighted>, mut chance: impl FnMut() -> f64) -> Vec<Weighted> {
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let group = records.iter().take_while(|record| record.priority == first.priority).count();
        let total: u32 = records[..group].iter().map(|record| u32::from(record.weight)).sum();
        let mut left = chance() * f64::from(total);
        let mut chosen = group - 1;
        for (index, record) in records[..group].iter().enumerate() {
            left -= f64::from(record.weight);
            if left <= 0.0 && (record.weight > 0 || total == 0) {
                chosen = index;
                break;
            }
        }
        ordered.push(records.remove(chosen));
    }
    ordered
}

/// Addresses of one host.
async fn hosts(lookups: &Lookups, host: &str, transport: Transport, port: u16) -> Vec<Address> {
    let name = host.trim_end_matches('.');
    if let Ok(ip) = name.parse::<IpAddr>() {
        return vec![Address { transport, address: SocketAddr::new(ip, port) }];
    }
    let found = lookups.heard(lookups.resolver.lookup_ip(absolute(host)).await);
    found.map_or_else(Vec::new, |answer| answer.iter().map(|ip| Address { transport, address: SocketAddr::new(ip, port) }).collect())
}

/// Search domains are for people, not for SIP.
fn absolute(host: &str) -> String {
    // Names without a dot are those of the hosts file.
    if host.ends_with('.') || !host.contains('.') { host.to_owned() } else { format!("{host}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> Weighted {
        Weighted { priority, weight, host: host.to_owned(), port: 5060 }
    }

    #[test]
    fn priority_comes_before_weight() {
        let records = vec![record(20, 100, "c"), record(10, 1, "a"), record(10, 99, "b")];
        let names = |chance: f64| by_weight(records.clone(), || chance).into_iter().map(|w| w.host).collect::<String>();
        assert_eq!(names(0.0), "abc");
        assert_eq!(names(0.5), "bac");
    }

    #[test]
    fn every_record_is_kept_however_many_there_are() {
        let records: Vec<_> = (0..300).map(|i| record(i % 3, i % 7, &format!("h{i}"))).collect();
        assert_eq!(by_weight(records, || 0.3).len(), 300);
    }

    #[test]
    fn weights_share_the_load() {
        let mut seed = 0u32;
        let mut chance = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed >> 8) / f64::from(1 << 24)
        };
        let heavy = (0..4_000).filter(|_| by_weight(vec![record(1, 30, "light"), record(1, 70, "heavy")], &mut chance)[0].host == "heavy").count();
        assert!((2_600..3_000).contains(&heavy), "{heavy}");
    }
}
