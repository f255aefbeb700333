//! Rows and their SQL, one module per table. A row knows what its change means to others ([`Hooks`](crate::db::Hooks))
//! and nothing of JSON. What reads takes a [`Reader`](crate::db::Reader), what writes a [`Tx`](crate::db::Tx).

pub mod documents;
pub mod idempotency_keys;
pub mod journal;
pub mod members;
pub mod sessions;
pub mod users;
pub mod workspaces;
