//! Between Actix and the services: who asks, what was sent, and how answers look. No rules of the domain.

pub mod body;
pub mod caller;
pub mod client_address;
pub mod cursor;
pub mod gate;
pub mod if_match;
pub mod memo;
pub mod middleware;
pub mod params;
pub mod reply;
mod view_body;
pub mod view_cache;
