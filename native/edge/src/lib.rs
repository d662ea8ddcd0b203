//! One worker's life of a request (DESIGN section 4), without sockets and without a clock.
//!
//! [`Edge`] takes messages, answers to its questions and the time; it gives back what to send, to ask and to record
//! through its [`Outbox`]. One file holds one phase.
#![forbid(unsafe_code)]

mod account;
mod account_attributes;
mod ack;
mod admit;
mod adopt;
mod authenticate;
mod call;
mod call_name;
mod call_ping;
mod cancel;
mod carrier_settings;
mod chooser;
mod contact_check;
mod counters;
mod credential;
mod decision;
mod defence;
mod edge;
mod emergency;
mod event;
mod flood;
mod forward_register;
mod fraud;
mod gateway_call;
mod gateway_uri;
mod give_up;
mod glob;
mod gruu;
mod hang_up;
mod hide;
mod hop;
mod identify;
mod identity;
mod in_dialog;
mod limit_settings;
mod limit_share;
mod limits;
mod local;
mod location_write;
mod matching;
mod media_adopt;
mod media_anchor;
mod media_external;
mod media_notice;
mod media_offers;
mod media_session;
mod media_settings;
mod media_text;
mod middlebox;
mod nat;
mod nat_repair;
mod number_settings;
mod numbers;
mod origin;
mod out_of_reach;
mod outbound;
mod outbox;
mod ownership;
mod panic;
mod peer;
mod peer_counters;
mod plan;
mod policy;
mod policy_branch;
mod policy_edit;
mod policy_response;
mod policy_rule;
mod pool;
mod probe;
mod question;
mod reach;
mod reason;
mod receive;
mod recent;
mod record;
mod register;
mod relay;
mod response;
mod rewrite;
mod route;
mod routing_table;
mod session_timer;
mod settings;
mod stun;
mod subscriber_settings;
mod target;
mod throttle;
mod timeout;
mod transaction;
mod users;
mod variables;
mod verdict;
mod walk;

pub use ::media::{
    Command as MediaCommand, NgAnswer, NgCommand, NgKind, Notice as MediaNotice, PortPair, PortPool, Relay as MediaRelay, SessionId, SessionReport, ng_answer,
    ng_ping, ng_report,
};
pub use admit::Shedding;
pub use call::{CallSummary, CallView, decode_call};
pub use call_ping::CallPingSettings;
pub use carrier_settings::{Balance, CallerGroups, CarrierRouteSettings, GatewayHealthSettings, MachineSettings, PoolSettings, QualitySettings};
pub use counters::{Counters, DECISION_BOUNDS};
pub use credential::{CredentialAnswer, CredentialQuestion};
pub use decision::Decisions;
pub use defence::{Failure, SharedFailures};
pub use edge::{Edge, EdgeOptions, Routes};
pub use emergency::EmergencySettings;
pub use event::{Event, EventKind, EventValue, Listening};
pub use flood::{FloodSettings, SourceView};
pub use fraud::{FraudActions, FraudRuleSettings, FraudSettings, number_hash, watched_parties};
pub use gateway_uri::{loses_plus, normal as normal_number};
pub use gruu::Wanted;
pub use guard::{Ban, BanChange, Capacity, Caps, FraudStats, FraudTold, Full, Level, PastAlarm, PastCall, replay as replay_fraud};
pub use hide::hide_secrets;
pub use hop::{ConnectionId, Hop};
pub use limit_settings::{Counts, KeyLimitSettings, LimitView, SharedSettings};
pub use limit_share::{KeyAsk, KeyShare, Released, ShareQuestion, share_asks};
pub use location_write::{LocationRow, LocationWrite, contact_id};
pub use media_external::{MediaAnswer, MediaQuestion};
pub use media_session::MediaPorts;
pub use media_settings::{Engage, EngineSettings, LearningSettings, MediaSettings, RtpengineSettings};
pub use number_settings::{GatewayNumberSettings, NumberField, NumberRuleSettings, NumberScheme, NumberSetSettings, NumberUseSettings};
pub use outbox::{Outbox, Transmit};
pub use peer_counters::{COUNTED_PEERS, PeerCounters, PeerCounts};
pub use question::{Address, Answer, Asker, Question, QuestionId};
pub use reach::{Reach, ReachQuestion};
pub use record::{AttemptRecord, CallRecord, Json, MediaRecord, MediaSideRecord, RECORD_VERSION};
pub use route::is_own_host;
pub use routing::{HealthRules, QualityRules, Table};
pub use routing_table::Routing;
pub use session_timer::SessionTimerSettings;
pub use settings::{
    Forking, LimitSettings, ListenerSettings, MatchSettings, OversizeRequest, PeerKind, PeerSettings, PolicySettings, RouteSettings, SettingsError, Snapshot,
    TimerSettings, TraceSettings, Way,
};
pub use subscriber_settings::{
    AttackSettings, AuthenticationSettings, ContactSettings, DomainRules, KeepAliveSettings, NatSettings, RegistrarMode, RegistrarSettings,
};
pub use target::HostName;
pub use verdict::{Named, PolicyEvent, PolicyQuestion, PolicyToken, QuestionView, TOKEN};
