//! `lockstep`: a REST API for team workspaces whose two-tier cache never lies.
//!
//! Start with `docs/architecture.md`. The layers, from the outside in:
//! [`api`] (URLs) → [`services`] (writes) and [`queries`] (cached reads) → [`models`] (rows) → [`db`]; beside them
//! [`cache`], which knows none of them, and [`journal`], which sees to it that no change is missed. [`app`] puts them
//! together.

pub mod api;
pub mod app;
pub mod auth;
pub mod cache;
#[cfg(feature = "bench")]
pub mod ceiling;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod error;
mod hex;
pub mod http;
pub mod journal;
pub mod metrics;
pub mod models;
pub mod queries;
pub mod rate_limit;
pub mod realtime;
pub mod redis;
pub mod server;
pub mod services;
mod sharded;
pub mod telemetry;
