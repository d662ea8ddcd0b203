//! What the configuration says of numbers, as it crosses.

use serde::Deserialize;

/// One rule of a set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberRuleSettings {
    /// It is for numbers that begin so; nothing where `pattern` says which.
    pub prefix: Option<String>,
    /// It is for numbers in which this regular expression is found.
    pub pattern: Option<String>,
    /// Characters that go from the front.
    pub strip: u8,
    /// What comes there.
    pub add: String,
    /// The number with `\1` and so on for groups of `pattern`, in place of `strip` and `add`.
    pub replace: Option<String>,
}

/// Rules, `[numbers.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberSetSettings {
    /// Its name.
    pub name: String,
    /// The rules, in order.
    pub rules: Vec<NumberRuleSettings>,
    /// Rows of `dialplan` with this `dpid` come behind them.
    pub dialplan: Option<u32>,
    /// What a Request-URI is refused with whose number no rule is for; it stays as it is where there is none.
    pub refuse: Option<(u16, String)>,
}

/// What has a number that is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberField {
    /// The Request-URI.
    RequestUri,
    /// From.
    From,
    /// P-Asserted-Identity (RFC 3325).
    PAssertedIdentity,
    /// Diversion (RFC 5806).
    Diversion,
}

/// Which scheme a number is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberScheme {
    /// As it came.
    Keep,
    /// `sip:`, with `user=phone`.
    Sip,
    /// `tel:` where the number is a global one (RFC 3966 section 5.1.4).
    Tel,
}

/// A set in use by a peer or a gateway, one way.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberUseSettings {
    /// The set's name.
    pub set: String,
    /// What is changed by it.
    pub fields: Vec<NumberField>,
    /// How it is written.
    pub scheme: NumberScheme,
}

/// What a gateway's numbers go by, `[gateway.NAME]`; more than what its peer says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayNumberSettings {
    /// `gwid`.
    pub name: String,
    /// What it sends.
    pub numbers_in: Option<NumberUseSettings>,
    /// What it gets.
    pub numbers_out: Option<NumberUseSettings>,
}
