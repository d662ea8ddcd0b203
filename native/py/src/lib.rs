//! The compiled module `edgeproxy._native`: conversions and error mapping, no logic.
#![forbid(unsafe_code)]

use pyo3::prelude::*;

mod engine;
mod errors;
mod fraud;
mod policy;
mod request;
mod routes;
mod shares;
mod simulated;
mod trace;
mod users;

/// The native half of edgeproxy.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::engine::{
        Engine, become_user, check_document, drain_log, event_shapes, give_up_capabilities, install_logger, may_bind_low, pattern_fault, set_log_level,
        take_short_turns, unknown_group,
    };
    #[pymodule_export]
    use crate::fraud::{replay_fraud, watched_parties};
    #[pymodule_export]
    use crate::policy::{PolicyLink, PolicyPort, Question};
    #[pymodule_export]
    use crate::request::{Request, Uri, long_name};
    #[pymodule_export]
    use crate::routes::{RouteLoad, RouteTables, look_up};
    #[pymodule_export]
    use crate::simulated::SimulatedEdge;
    #[pymodule_export]
    use crate::trace::TraceEntry;
    #[pymodule_export]
    use crate::users::{BindingRow, contact_id};
}
