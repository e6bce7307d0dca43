//! What a process uses, as `/proc` shows it.

use std::fs;
use std::time::Duration;

use super::{RunningServer, until};

/// The unit of times in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// How long a process is watched.
const WATCHED: Duration = Duration::from_millis(300);
/// One that spins takes most of that time, even where it shares a core with two others.
const HARDLY_ANY: Duration = Duration::from_millis(30);

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub resident_kib: u64,
    pub descriptors: usize,
}

impl Usage {
    /// Of that process, now; none once it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // One that has ended and was not reaped has no memory, and no such line.
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Some(Self { resident_kib, descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() })
    }
}

/// How long that process has run on a processor, if it is still there.
fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    // The fields from the state on, which is the third; user and system time are the 14th and the 15th.
    let ticks: u32 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    Some(TICK * ticks)
}

/// How often, until it is idle: what there was to do may take its time where others run as well.
const WATCHES: u32 = 4;

/// Panics if one of those processes works, though there is nothing to do.
#[track_caller]
pub fn assert_idle(pids: &[i32]) {
    assert!((0..WATCHES).any(|_| are_idle(pids)), "processes {pids:?} work");
}

/// Looks for a while whether those processes have done all that there is to do. One that ends meanwhile had not.
pub fn are_idle(pids: &[i32]) -> bool {
    let before: Vec<Option<Duration>> = pids.iter().map(|pid| cpu_time(*pid)).collect();
    std::thread::sleep(WATCHED);
    pids.iter().zip(before).all(|(pid, before)| {
        let used = before.and_then(|before| cpu_time(*pid)?.checked_sub(before));
        used.is_some_and(|used| used <= HARDLY_ANY)
    })
}

/// What acceptor and storage service hold.
pub fn of_server(server: &RunningServer) -> [Usage; 2] {
    [server.pid(), server.storage()].map(|pid| Usage::of(pid).expect("it lives"))
}

/// Waits until no handler is left, then panics unless acceptor and storage service hold about what they held before,
/// and are idle.
#[track_caller]
pub fn assert_nothing_left(server: &RunningServer, before: [Usage; 2]) {
    server.wait_for_handlers(0);
    until("all descriptors are given back", || {
        of_server(server).iter().zip(before).all(|(now, before)| now.descriptors <= before.descriptors)
    });
    for (now, before) in of_server(server).iter().zip(before) {
        let grown = now.resident_kib.saturating_sub(before.resident_kib);
        assert!(grown <= 4096, "memory grew from {before:?} to {now:?}");
    }
    assert_idle(&[server.pid(), server.storage()]);
}
