//! Rows and their SQL, one module per table. A row knows what its change means to others ([`Hooks`](crate::db::Hooks))
//! and nothing of JSON. What reads takes a [`Reader`](crate::db::Reader), what writes a [`Tx`](crate::db::Tx).

pub mod channels;
pub mod documents;
pub mod events;
pub mod idempotency_keys;
pub mod journal;
pub mod members;
pub mod messages;
pub mod notifications;
pub mod search;
pub mod sessions;
pub mod users;
pub mod workspaces;
