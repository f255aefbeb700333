//! Limits on how much one caller may ask.
//!
//! For now the outermost one: a flood guard per process and client address, before authentication.

pub mod flood_guard;
