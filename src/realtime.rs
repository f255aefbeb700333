//! Telling clients in real time what happens (server-sent events).
//!
//! The log is a table, written in the transactions that cause the events; this module reads it and never writes. One
//! [`hub`] in each process reads what has become visible whenever it hears that something was invalidated anywhere, and
//! once a second in any case. Nothing is sent that was not read there, so nothing is lost with a message of the bus.
//!
//! **Invariants.**
//! * A client is told each event that it may see once: a [`Position`] says exactly what was visible
//!   when it was sent, and whoever shows it, to whichever instance, gets what became visible since.
//! * Rights are looked up in the database after the event was read: whoever was removed before something happened is not
//!   told of it, whatever any cache holds.
//! * Nobody waits for a slow client: its queue is bounded, and when that is full it is dropped and may resume.

mod audience;
pub mod feed;
pub mod hub;
pub mod position;

use bytes::Bytes;

use self::position::Position;
use crate::models::events::Event;

/// How long events are kept.
pub const KEEP_MINUTES: i64 = 60;

/// An event as it goes on the wire.
fn frame(position: &Position, event: &Event) -> Bytes {
    let workspace = event.workspace_id.map(|id| format!(",\"workspace_id\":\"{id}\"")).unwrap_or_default();
    let (kind, data) = (event.kind, &event.data);
    // JSON has no line breaks outside of strings, and none unescaped inside of them.
    format!("id: {position}\nevent: {kind}\ndata: {{\"type\":\"{kind}\"{workspace},\"data\":{data}}}\n\n")
        .into()
}
