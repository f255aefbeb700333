//! Use cases: who may do what, in which transaction. Handlers call these; these write through [`Db::write`](crate::db::Db::write) and
//! cannot forget an invalidation.

pub mod channels;
pub mod documents;
pub mod events;
pub mod members;
pub mod mentions;
pub mod messages;
pub mod notifications;
pub mod once;
pub mod operations;
pub mod sessions;
pub mod users;
pub mod workspaces;
