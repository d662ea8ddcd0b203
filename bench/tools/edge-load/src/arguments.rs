//! The command line.

use std::net::SocketAddr;

/// What the load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// INVITE, 180, 200, ACK, BYE, 200.
    Call,
    /// REGISTER and its answer.
    Register,
    /// Datagrams that are no SIP.
    Garbage,
    /// RTP over streams.
    Media,
}

pub(crate) struct Arguments {
    pub(crate) scenario: Scenario,
    pub(crate) target: SocketAddr,
    pub(crate) caller: SocketAddr,
    pub(crate) callee: SocketAddr,
    pub(crate) rate: f64,
    pub(crate) duration_seconds: f64,
    pub(crate) hold_milliseconds: u64,
    pub(crate) reliable: bool,
    /// Of so many calls the callee refuses one, the caller cancels one while it is being answered, and one caller is gone without a
    /// word; 0 for none.
    pub(crate) refused_every: usize,
    pub(crate) cancelled_every: usize,
    pub(crate) killed_every: usize,
    /// Addresses that calls come from in turn: of 127.1.0.0/16 and 127.2.0.0/16, as many each; 0 for the caller's own.
    pub(crate) callers: usize,
    /// Digits of the numbers called; 0 calls a service.
    pub(crate) digits: u32,
    /// The domain that is registered at; empty: that of the target.
    pub(crate) domain: String,
    /// How many users register, over and over; 0: each time another one.
    pub(crate) users: usize,
    /// What a user's number is put behind to be the password; none: a challenge is a failure.
    pub(crate) password: Option<String>,
    /// How streams are set up.
    pub(crate) setup: String,
    /// How many.
    pub(crate) streams: usize,
}

const USAGE: &str = "usage: edge-load [call|register|garbage|media] [--target A:P] [--caller A:P] [--callee A:P] [--rate N] [--duration SECONDS] [--hold-ms N] [--transport udp|tcp] [--digits N] [--callers N] [--domain NAME] [--users N] [--password PREFIX] [--setup sip|aborted|ng:A:P|ports:FIRST] [--streams N] [--refused-every N] [--cancelled-every N] [--killed-every N]";

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut arguments = Self {
            scenario: Scenario::Call,
            target: local(5060),
            caller: local(5080),
            callee: local(5070),
            rate: 100.0,
            duration_seconds: 5.0,
            hold_milliseconds: 0,
            reliable: false,
            refused_every: 0,
            cancelled_every: 0,
            killed_every: 0,
            callers: 0,
            digits: 0,
            domain: String::new(),
            users: 0,
            password: None,
            setup: "sip".to_owned(),
            streams: 100,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(USAGE);
            let fault = |text: &str| format!("{word}: cannot read {text}\n{USAGE}");
            match word.as_str() {
                "call" => arguments.scenario = Scenario::Call,
                "register" => arguments.scenario = Scenario::Register,
                "garbage" => arguments.scenario = Scenario::Garbage,
                "media" => arguments.scenario = Scenario::Media,
                "--setup" => arguments.setup = value()?,
                "--streams" => {
                    let text = value()?;
                    arguments.streams = text.parse().ok().filter(|streams| (1..=100_000).contains(streams)).ok_or_else(|| fault(&text))?;
                }
                "--target" | "--caller" | "--callee" => {
                    let text = value()?;
                    let place = text.parse().map_err(|_| fault(&text))?;
                    match word.as_str() {
                        "--target" => arguments.target = place,
                        "--caller" => arguments.caller = place,
                        _ => arguments.callee = place,
                    }
                }
                "--rate" | "--duration" => {
                    let text = value()?;
                    let number: f64 = text.parse().map_err(|_| fault(&text))?;
                    if word == "--rate" { arguments.rate = number } else { arguments.duration_seconds = number }
                }
                "--hold-ms" => {
                    let text = value()?;
                    arguments.hold_milliseconds = text.parse().map_err(|_| fault(&text))?;
                }
                "--domain" => arguments.domain = value()?,
                "--password" => arguments.password = Some(value()?),
                "--users" => {
                    let text = value()?;
                    arguments.users = text.parse().map_err(|_| fault(&text))?;
                }
                "--refused-every" | "--cancelled-every" | "--killed-every" => {
                    let text = value()?;
                    let every = text.parse().map_err(|_| fault(&text))?;
                    match word.as_str() {
                        "--refused-every" => arguments.refused_every = every,
                        "--cancelled-every" => arguments.cancelled_every = every,
                        _ => arguments.killed_every = every,
                    }
                }
                "--callers" => {
                    let text = value()?;
                    arguments.callers = text.parse().ok().filter(|callers| *callers <= 100_000).ok_or_else(|| fault(&text))?;
                }
                "--digits" => {
                    let text = value()?;
                    arguments.digits = text.parse().ok().filter(|digits| *digits <= 18).ok_or_else(|| fault(&text))?;
                }
                "--transport" => {
                    let text = value()?;
                    arguments.reliable = match text.as_str() {
                        "udp" => false,
                        "tcp" => true,
                        _ => return Err(fault(&text)),
                    };
                }
                _ => return Err(format!("{word}: unknown\n{USAGE}")),
            }
        }
        if arguments.rate > 0.0 && arguments.duration_seconds > 0.0 { Ok(arguments) } else { Err(USAGE.to_owned()) }
    }
}
