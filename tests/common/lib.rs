//! What the black-box tests share: servers, clients that send and expect bytes, and readers of logs and files.
//!
//! Nothing here uses the program's own encoders, so that a wrong encoder cannot confirm itself.

pub mod agencies;
pub mod bets;
pub mod client;
pub mod compose;
pub mod disks;
#[cfg(target_arch = "x86_64")]
pub mod hijack;
pub mod honest;
pub mod load;
pub mod log;
pub mod oracle;
pub mod original;
pub mod processes;
pub mod program;
pub mod queues;
pub mod server;
pub mod setup;
pub mod stage;
pub mod terminal;
pub mod tls;

use std::time::{Duration, Instant};

pub use bets::{Bet, bets, digest_after, digest_of, records, rows, winner};
pub use client::{Client, Opened, frame, kind, status};
pub use honest::{Honest, assert_at_once, upload};
pub use log::Log;
pub use program::{Running, loteria, output, text};
pub use server::{RunningServer, free_port};
pub use setup::Setup;

/// How long a test waits for something that should happen at once. Generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a waiting test sleeps between two looks.
pub const PAUSE: Duration = Duration::from_millis(2);
/// How long a test waits to see that nothing happens.
pub const A_WHILE: Duration = Duration::from_millis(200);

/// Waits until the condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}

/// Waits until `look` finds something.
#[track_caller]
pub fn await_some<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let Some(found) = await_within(PATIENCE, look) else { panic!("this did not happen: {what}") };
    found
}

/// Waits until `look` finds something, but no longer than `limit`.
pub fn await_within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Starts a server for this many agencies.
pub fn server_of(agencies: u32) -> RunningServer {
    Setup::of(agencies).start()
}
