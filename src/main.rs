//! The command `lockstep`.

use std::process::ExitCode;

/// A request allocates and frees some dozens of small things, some of them on another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lockstep::cli::run()
}
