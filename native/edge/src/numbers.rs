//! Numbers of one form made those of another, as a peer or a gateway has them: within the network one form, at its border theirs.

use std::collections::HashMap;
use std::sync::Arc;

use proto::{Key, Now};
use routing::{Becomes, Fits, Gateway, NumberRule, NumberRules, SEPARATORS, Table};
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Method, Scheme, Span, Uri, parse_name_addr, push_user};

use crate::edge::Edge;
use crate::gateway_uri::{push_parameters, unescaped};
use crate::hop::Hop;
use crate::identify::Original;
use crate::matching::Refusal;
use crate::number_settings::{GatewayNumberSettings, NumberField, NumberRuleSettings, NumberScheme, NumberSetSettings, NumberUseSettings};
use crate::route::{RouteView, has_param};
use crate::settings::{RouteSettings, SettingsError, Snapshot};
use crate::transaction::Shape;

/// Values of a header field that are looked at; a sender could make us ask thousands.
const MOST_VALUES: usize = 8;

/// Rules that have a name.
#[derive(Debug)]
struct NumberSet {
    rules: NumberRules,
    dialplan: Option<u32>,
    refuse: Option<(u16, String)>,
}

/// A set in use, one way.
#[derive(Debug)]
pub(crate) struct NumberTerms {
    name: String,
    set: Arc<NumberSet>,
    fields: Vec<NumberField>,
    scheme: NumberScheme,
}

/// What peers and gateways have; most have nothing.
#[derive(Debug, Default)]
pub(crate) struct NumberPolicies {
    /// By the peer's place: what it sends, what it gets.
    peers: Vec<[Option<Arc<NumberTerms>>; 2]>,
    gateways: HashMap<String, [Option<Arc<NumberTerms>>; 2]>,
    /// Whether anybody has any.
    any: bool,
}

/// Which way a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In = 0,
    Out = 1,
}

/// What a message is to be changed by.
#[derive(Debug, Default)]
pub(crate) struct Renumbered {
    pub(crate) request_uri: Option<Vec<u8>>,
    /// Other places with what comes there.
    pub(crate) edits: SmallVec<[(Span, Vec<u8>); 2]>,
    /// Whether From is among them.
    pub(crate) from: bool,
}

/// What rules are asked with.
pub(crate) struct NumberContext<'a> {
    /// Where dial plans are.
    pub(crate) table: Option<&'a Table>,
    pub(crate) wall_seconds: i64,
    /// Host and port of a Request-URI that is made of a `tel:` URI.
    pub(crate) host: &'a [u8],
    /// The same for URIs that say who somebody is: they are of this network.
    pub(crate) own: &'a [u8],
}

impl NumberPolicies {
    pub(crate) fn new(settings: &RouteSettings) -> Result<Self, SettingsError> {
        let sets = settings.number_sets.iter().map(|set| Ok((set.name.as_str(), Arc::new(compile(set)?)))).collect::<Result<HashMap<_, _>, SettingsError>>()?;
        let terms = |of: &str, used: &Option<NumberUseSettings>| -> Result<Option<Arc<NumberTerms>>, SettingsError> {
            let Some(NumberUseSettings { set: name, fields, scheme }) = used else { return Ok(None) };
            let found =
                sets.get(name.as_str()).ok_or_else(|| SettingsError::Value { path: of.to_owned(), problem: "no such set of numbers", value: name.clone() })?;
            Ok(Some(Arc::new(NumberTerms { name: name.clone(), set: Arc::clone(found), fields: fields.clone(), scheme: *scheme })))
        };
        let both =
            |of: &str, numbers_in: &Option<NumberUseSettings>, numbers_out: &Option<NumberUseSettings>| Ok([terms(of, numbers_in)?, terms(of, numbers_out)?]);
        let peers =
            settings.peers.iter().map(|peer| both(&format!("peer.{}", peer.name), &peer.numbers_in, &peer.numbers_out)).collect::<Result<Vec<_>, _>>()?;
        let gateway = |gateway: &GatewayNumberSettings| {
            Ok((gateway.name.clone(), both(&format!("gateway.{}", gateway.name), &gateway.numbers_in, &gateway.numbers_out)?))
        };
        let gateways = settings.gateway_numbers.iter().map(gateway).collect::<Result<HashMap<_, _>, _>>()?;
        let any = peers.iter().chain(gateways.values()).flatten().any(Option::is_some);
        Ok(Self { peers, gateways, any })
    }

    /// Whether anybody has any: where not, nobody needs to ask who.
    pub(crate) fn is_used(&self) -> bool {
        self.any
    }

    /// What numbers of a gateway go by, or of its peer where the gateway has nothing of its own.
    pub(crate) fn of(&self, way: Way, peer: Option<u16>, gateway: Option<&str>) -> Option<&Arc<NumberTerms>> {
        let own = gateway.and_then(|gateway| self.gateways.get(gateway)?[way as usize].as_ref());
        own.or_else(|| self.peers.get(usize::from(peer?))?[way as usize].as_ref())
    }
}

/// The rule for a number that a peer sends in a Request-URI, with what that makes of it; `None` where it stays as it is.
///
/// # Errors
/// The answer where no rule is for it and that is to be refused.
pub(crate) fn translate(
    policies: &NumberPolicies,
    peer: u16,
    table: Option<&Table>,
    number: &str,
    wall_seconds: i64,
) -> Result<Option<(String, String)>, (u16, String)> {
    let context = NumberContext { table, wall_seconds, host: b"", own: b"" };
    let Some(terms) = policies.of(Way::In, Some(peer), None).filter(|terms| terms.fields.contains(&NumberField::RequestUri)) else { return Ok(None) };
    match (terms.translate(&context, &plain(number.as_bytes())), &terms.set.refuse) {
        (Some((rule, made)), _) => Ok(Some((rule, String::from_utf8_lossy(&made).into_owned()))),
        (None, Some(refuse)) => Err(refuse.clone()),
        (None, None) => Ok(None),
    }
}

impl Snapshot {
    /// The Request-URI that a gateway gets in place of `uri`, by what its numbers, or those of its peer, become on their way out;
    /// `table` has dial plans, and `lost_plus` tells of a plus sign that rules did not have.
    pub fn renumbered(&self, table: Option<&Table>, gateway: &Gateway, uri: &str, lost_plus: bool, wall_seconds: i64) -> String {
        let terms = self.numbers.of(Way::Out, self.gateway_peer(gateway.kind), Some(gateway.id()));
        let terms = terms.filter(|terms| terms.fields.contains(&NumberField::RequestUri));
        let context = NumberContext { table, wall_seconds, host: b"", own: b"" };
        let bytes = uri.as_bytes();
        let made = terms.zip(Uri::parse(bytes, Span::new(0, bytes.len())).ok()).and_then(|(terms, parsed)| {
            // What no rule is for goes out as it is.
            terms.made(&context, bytes, &parsed, lost_plus, None).ok().flatten()
        });
        made.map_or_else(|| uri.to_owned(), |made| String::from_utf8_lossy(&made).into_owned())
    }
}

fn compile(set: &NumberSetSettings) -> Result<NumberSet, SettingsError> {
    let rule = |(place, rule): (usize, &NumberRuleSettings)| {
        let fault = |value: &str| SettingsError::Value { path: format!("numbers.{}.rules.{place}", set.name), problem: "not a rule", value: value.to_owned() };
        let fits = match (&rule.prefix, &rule.pattern) {
            (_, Some(pattern)) => Fits::Pattern(routing::pattern(pattern, false).map_err(|problem| fault(&problem))?),
            (prefix, None) => Fits::Prefix(prefix.as_deref().unwrap_or_default().as_bytes().into()),
        };
        if let (Fits::Pattern(found), Some(template)) = (&fits, &rule.replace)
            && let Some(group) = routing::unknown_group(found, template.as_bytes())
        {
            return Err(fault(&format!("{template}, whose pattern has no group {group}")));
        }
        let becomes = match &rule.replace {
            Some(template) => Becomes::Made(None, template.as_bytes().into()),
            None => Becomes::Stripped(rule.strip, rule.add.as_bytes().into()),
        };
        Ok(NumberRule { name: format!("{} of {}", place + 1, set.name).into(), fits, becomes, recurrence: None })
    };
    let rules = set.rules.iter().enumerate().map(rule).collect::<Result<_, _>>()?;
    Ok(NumberSet { rules: NumberRules(rules), dialplan: set.dialplan, refuse: set.refuse.clone() })
}

impl NumberTerms {
    /// The name of the set.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The rule that is for a number, with what it makes of it.
    pub(crate) fn translate(&self, context: &NumberContext<'_>, number: &[u8]) -> Option<(String, Vec<u8>)> {
        if let Some((rule, made)) = self.set.rules.translate(number, |_| true) {
            return Some((rule.to_owned(), made));
        }
        let (row, made) = context.table?.translate(self.set.dialplan?, number, context.wall_seconds)?;
        Some((format!("row {row} of dialplan"), made))
    }

    /// What a message is to be changed by; its Request-URI may be another one than it has itself, whose number was looked up without
    /// the plus sign that it had.
    ///
    /// # Errors
    /// The answer where no rule is for the number of its Request-URI and that is to be refused.
    pub(crate) fn renumber(
        &self,
        context: &NumberContext<'_>,
        message: &Message<'_>,
        request_uri: Option<&[u8]>,
        lost_plus: bool,
    ) -> Result<Renumbered, (u16, String)> {
        let mut done = Renumbered::default();
        if self.fields.contains(&NumberField::RequestUri) {
            let bytes = request_uri.unwrap_or_else(|| message.text(message.head.request_uri.whole));
            if let Ok(uri) = Uri::parse(bytes, Span::new(0, bytes.len())) {
                done.request_uri = self.made(context, bytes, &uri, lost_plus, self.set.refuse.as_ref())?;
            }
        }
        if self.fields.contains(&NumberField::From) {
            done.from = self.change(context, message, message.head.from.uri, &mut done.edits);
        }
        for (field, name) in [(NumberField::PAssertedIdentity, HeaderName::PAssertedIdentity), (NumberField::Diversion, HeaderName::Diversion)] {
            if self.fields.contains(&field) {
                for element in message.elements(name).take(MOST_VALUES) {
                    if let Some(value) = parse_name_addr(message.bytes, element) {
                        self.change(context, message, value.uri, &mut done.edits);
                    }
                }
            }
        }
        Ok(done)
    }

    fn change(&self, context: &NumberContext<'_>, message: &Message<'_>, place: Span, edits: &mut SmallVec<[(Span, Vec<u8>); 2]>) -> bool {
        let made = Uri::parse(message.bytes, place)
            .ok()
            .and_then(|uri| self.made(&NumberContext { host: context.own, ..*context }, message.bytes, &uri, false, None).ok().flatten());
        let Some(mut made) = made else { return false };
        // Without angle brackets its parameters would be those of the header field (RFC 3261 section 20).
        if place.start().checked_sub(1).and_then(|at| message.bytes.get(at)) != Some(&b'<') {
            made.insert(0, b'<');
            made.push(b'>');
        }
        edits.push((place, made));
        true
    }

    /// The URI with the number as the rules make it; `None` where it stays as it is.
    fn made(
        &self,
        context: &NumberContext<'_>,
        bytes: &[u8],
        uri: &Uri,
        lost_plus: bool,
        refuse: Option<&(u16, String)>,
    ) -> Result<Option<Vec<u8>>, (u16, String)> {
        let is_tel = uri.scheme == Scheme::Tel;
        if !is_tel && !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) {
            return Ok(None);
        }
        let user = uri.user.of(bytes);
        if user.is_empty() {
            // There is no number, and no place for one.
            return refuse.map_or(Ok(None), |refuse| Err(refuse.clone()));
        }
        let (user, parameters) = user.split_at(user.iter().position(|byte| *byte == b';').unwrap_or(user.len()));
        let number = plain(user);
        // Rules of this network know it with its plus sign, and those of the gateway may know it as it goes out.
        let whole = if lost_plus { [b"+", number.as_slice()].concat() } else { number.clone() };
        let asked = |number: &[u8]| self.translate(context, number).map(|(_, made)| made);
        let found = asked(&whole).or_else(|| if lost_plus { asked(&number) } else { None });
        if let (None, Some(refuse)) = (&found, refuse) {
            return Err(refuse.clone());
        }
        // What is no number, and a local one that is of no place, no tel: URI can say (RFC 3966 section 5.1.5).
        let needs_sip = |made: &[u8]| !is_telephone(made) || !is_global(made) && !has_param(bytes, uri, b"phone-context");
        let turns = match self.scheme {
            NumberScheme::Keep => is_tel && found.as_deref().is_some_and(|made| made != number && needs_sip(made)),
            NumberScheme::Sip => is_tel,
            NumberScheme::Tel if is_tel => found.as_deref().is_some_and(|made| made != number && needs_sip(made)),
            NumberScheme::Tel => is_global(found.as_deref().unwrap_or(&whole)),
        };
        let same = found.as_ref().is_none_or(|made| *made == number);
        if same && !turns {
            return Ok(None);
        }
        let made = found.unwrap_or(if turns { whole } else { number });
        // A number of the world is one of no place (RFC 3966 section 5.1.4).
        let local = if is_tel && is_global(&made) { b"phone-context".as_slice() } else { b"" };
        let params = without(uri.params.of(bytes), local);
        let mut out = Vec::with_capacity(bytes.len() + 32);
        if turns && is_tel {
            out.extend_from_slice(b"sip:");
            push_user(&made, &mut out);
            push_parameters(&params, &mut out);
            out.push(b'@');
            out.extend_from_slice(context.host);
            out.extend_from_slice(b";user=phone");
        } else if is_tel {
            out.extend_from_slice(b"tel:");
            out.extend_from_slice(&made);
            out.extend_from_slice(&params);
        } else if turns {
            out.extend_from_slice(b"tel:");
            out.extend_from_slice(&made);
            out.extend_from_slice(parameters);
        } else {
            out.extend_from_slice(Span::new(uri.whole.start(), uri.user.start()).of(bytes));
            push_user(&made, &mut out);
            out.extend_from_slice(parameters);
            out.extend_from_slice(Span::new(uri.user.end(), uri.whole.end()).of(bytes));
        }
        Ok(Some(out))
    }
}

/// Parameters, each with its semicolon, without those of this name.
fn without(params: &[u8], name: &[u8]) -> Vec<u8> {
    let others = params.split(|byte| *byte == b';').skip(1).filter(|parameter| {
        let own = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.is_empty() || !own.eq_ignore_ascii_case(name)
    });
    others.flat_map(|parameter| [b";", parameter].concat()).collect()
}

/// The number of a user part: without escapes, and without what only parts digits where it is a telephone number.
fn plain(user: &[u8]) -> Vec<u8> {
    let mut number = unescaped(user);
    if number.iter().all(|byte| b"0123456789+*#".contains(byte) || SEPARATORS.contains(byte)) {
        number.retain(|byte| !SEPARATORS.contains(byte));
    }
    number
}

fn is_telephone(number: &[u8]) -> bool {
    !number.is_empty() && number.iter().enumerate().all(|(place, byte)| b"0123456789*#".contains(byte) || *byte == b'+' && place == 0)
}

fn is_global(number: &[u8]) -> bool {
    number.first() == Some(&b'+') && number.len() > 1 && number.iter().skip(1).all(u8::is_ascii_digit)
}

impl Edge {
    /// What numbers of a peer, or of the gateway that `gateway` tells, go by. Where nobody has any this costs one look.
    pub(crate) fn numbers_of<'a>(&'a self, way: Way, peer: Option<u16>, gateway: impl FnOnce() -> Option<&'a str>) -> Option<&'a Arc<NumberTerms>> {
        let numbers = &self.snapshot.numbers;
        if numbers.is_used() { numbers.of(way, peer, gateway()) } else { None }
    }

    fn number_context<'a>(&'a self, now: Now, host: &'a [u8], own: &'a [u8]) -> NumberContext<'a> {
        NumberContext { table: self.routing.table("").map(AsRef::as_ref), wall_seconds: (now.wall / 1_000_000) as i64, host, own }
    }

    /// Makes the numbers of a request those of this network and lets it go on, or refuses it.
    #[expect(clippy::too_many_arguments, reason = "one request with what the phases before found out about it")]
    pub(crate) fn open_renumbered(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView, peer: u16, terms: &NumberTerms) {
        let host = self.snapshot.sent_by(arrival.listener);
        let done = match terms.renumber(&self.number_context(now, host, host), message, None, false) {
            Ok(done) => done,
            Err((status_code, phrase)) => {
                self.counters.numbers_refused.add();
                let refusal = Refusal { reason_phrase: (!phrase.is_empty()).then_some(phrase), ..Refusal::new(status_code, "numbers") };
                return self.refuse(now, arrival, message, Some(peer), &refusal);
            }
        };
        if done.request_uri.is_none() && done.edits.is_empty() {
            return self.aim(now, arrival, message, key, route, peer, None);
        }
        self.counters.numbers_changed.add();
        self.edits.clear();
        if let Some(uri) = &done.request_uri {
            let shown = String::from_utf8_lossy(uri).into_owned();
            self.decide(message.call_id(), |edge| format!("numbers: {} makes the Request-URI {}", terms.name(), edge.shown_text(shown.as_bytes())));
            self.edits.replace(message.head.request_uri.whole, uri);
        }
        for (place, text) in &done.edits {
            self.edits.replace(*place, text);
        }
        let mut made = Vec::with_capacity(message.bytes.len() + 64);
        self.edits.apply(message, &mut made);
        let from = message.first(HeaderName::From).filter(|_| done.from).map(|slot| slot.value.of(message.bytes).into());
        let original = Original { from, loop_hash: self.loop_hash(message) };
        let gone_on = self.with_stored(&made, |edge, message| {
            // Offsets into the request as it came mean nothing in this one.
            let route = RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message).ok()?;
            edge.aim(now, arrival, message, key, &route, peer, Some(original));
            Some(())
        });
        if gone_on.flatten().is_none() {
            // With longer numbers it is larger than any request may be.
            self.refuse(now, arrival, message, Some(peer), &Refusal::new(513, "numbers"));
        }
    }

    /// What numbers become on their way to a peer or gateway.
    #[expect(clippy::too_many_arguments, reason = "one attempt with what is known of it")]
    pub(crate) fn numbers_out(
        &mut self,
        now: Now,
        entry: Key,
        message: &Message<'_>,
        shape: &Shape,
        hop: &Hop,
        peer: Option<u16>,
        uri: Option<&[u8]>,
    ) -> Renumbered {
        if !self.snapshot.numbers.is_used()
            || shape.dialog.is_some()
            || !matches!(message.head.method, Method::Invite | Method::Message)
            || self.is_emergency(message)
        {
            return Renumbered::default();
        }
        let plan = self.transactions.get(entry).and_then(|transaction| transaction.plan.as_ref());
        let plan = plan.filter(|plan| plan.terms.pool.is_none());
        let (gateway, lost_plus) = (plan.map(|plan| plan.gateway_name().to_owned()), plan.is_some_and(|plan| plan.lost_plus()));
        let Some(terms) = self.numbers_of(Way::Out, peer, || gateway.as_deref()).map(Arc::clone) else { return Renumbered::default() };
        let host = hop.address.to_string();
        // Refusing is for what comes in: what goes out as it is may still be understood there.
        let own = self.snapshot.sent_by(hop.listener);
        terms.renumber(&self.number_context(now, host.as_bytes(), own), message, uri, lost_plus).unwrap_or_default()
    }
}
