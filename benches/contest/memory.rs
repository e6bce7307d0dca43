//! What processes hold, as `/proc` shows it. All sizes are in KiB.

use std::fs;
use std::io;

/// What is in memory now.
pub fn resident(pid: i32) -> io::Result<f64> {
    value(pid, "status", "VmRSS")
}

/// The most that has ever been in memory.
pub fn peak(pid: i32) -> io::Result<f64> {
    value(pid, "status", "VmHWM")
}

/// What it has written to, and shares with no other process.
pub fn private_dirty(pid: i32) -> io::Result<f64> {
    value(pid, "smaps_rollup", "Private_Dirty")
}

fn value(pid: i32, file: &str, key: &str) -> io::Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path)?;
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = found.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("{path} has no {key}")))
}
