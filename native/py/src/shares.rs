//! Shares of limits as Python sees them: tuples.

use edge::{KeyAsk, KeyShare};

/// Limit, key, places kept, needed, used, wished for beyond the need, and as many as the key may have.
pub(crate) type Asked = (String, String, u32, u32, u32, u32, u32);
/// Limit, key, places of this node, and unused ones of others.
pub(crate) type Given = (String, String, u32, u32);

pub(crate) fn asked(ask: KeyAsk) -> Asked {
    (ask.limit, ask.key, ask.ask.keep, ask.ask.need, ask.ask.used, ask.ask.extra, ask.ask.most)
}

pub(crate) fn given((limit, key, quota, spare): Given) -> KeyShare {
    KeyShare { limit, key, quota, spare }
}
