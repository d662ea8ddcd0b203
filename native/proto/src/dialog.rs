//! Dialogs as a proxy sees them (RFC 3261 section 12).

/// How far a dialog has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogState {
    /// Made by a provisional response with a To tag.
    Early,
    /// Made, or confirmed, by a 2xx.
    Confirmed,
    /// Ended by a BYE.
    Terminated,
}

/// One dialog of a call; Call-ID and caller's tag are the call's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// The callee's tag.
    pub callee_tag: Box<[u8]>,
    /// How far it has come.
    pub state: DialogState,
}
