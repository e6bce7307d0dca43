//! What the black-box tests share: a server of their own, a client that speaks bytes, and what both should say.
//!
//! Nothing here uses the crate's own encoders: expected bytes are made independently of what they check.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by a panic, and says why on standard error"
)]

pub mod agencies;
pub mod bets;
pub mod client;
pub mod compose;
pub mod control_socket;
pub mod honest;
pub mod load;
pub mod log;
pub mod log_table;
pub mod oracle;
pub mod original;
pub mod processes;
pub mod program;
pub mod queues;
pub mod server;
pub mod stage;
pub mod terminal;
pub mod uploader;
pub mod usage;

use std::time::{Duration, Instant};

pub use bets::{Bet, bets, records, rows, winner};
pub use client::{Client, Opened, frame, kind, status};
pub use honest::{Honest, assert_at_once};
pub use log::Log;
pub use program::{Running, loteria, output, text};
pub use server::{RunningServer, Setup, free_port};
pub use uploader::upload;
pub use usage::Usage;

/// How long a test waits for what should come at once, before it calls it missing. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How soon a test looks again whether it has come.
pub const PAUSE: Duration = Duration::from_millis(2);
/// Long enough that an answer would have come, had one been sent.
pub const A_WHILE: Duration = Duration::from_millis(200);

/// Waits until the condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}

/// Waits until there is what is looked for.
#[track_caller]
pub fn await_some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let Some(found) = await_within(PATIENCE, look) else { panic!("it did not come to this: {what}") };
    found
}

/// Waits until there is what is looked for, or that time has passed.
pub fn await_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// A server of that many agencies.
pub fn server_of(agencies: u32) -> RunningServer {
    Setup::of(agencies).start()
}
