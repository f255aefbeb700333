//! The integration tests: the real program, against real PostgreSQL and real Redis.
//!
//! `scripts/test` starts both and says where they are in `TEST_DATABASE_URL` and `TEST_REDIS_URL`. Every test has a
//! database of its own and a Redis namespace of its own, so that all can run at once.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]
#![expect(unreachable_pub, reason = "nothing outside sees a test binary")]

mod support;

mod admin;
mod auth;
mod authorization;
mod cache;
mod channels;
mod cluster;
mod coherence;
mod database;
mod documents;
#[cfg(feature = "embedded")]
mod embedded;
mod events;
mod fail_safe;
mod flood_guard;
mod gate;
mod idempotency;
mod journal;
mod kinds;
mod members;
mod memo;
mod messages;
mod monitor;
mod notifications;
mod openapi;
mod rate_limit;
mod requests;
mod search;
mod standing;
mod surface;
mod toolkit;
mod users;
mod workspaces;
mod writes;
