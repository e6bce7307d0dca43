//! Memory of processes in KiB and their processor time, from `/proc`.

use std::fs;
use std::io;

/// Resident memory.
pub fn resident(pid: i32) -> io::Result<f64> {
    value(pid, "status", "VmRSS")
}

/// Peak resident memory.
pub fn peak(pid: i32) -> io::Result<f64> {
    value(pid, "status", "VmHWM")
}

/// Memory that the process has written and does not share.
pub fn private_dirty(pid: i32) -> io::Result<f64> {
    value(pid, "smaps_rollup", "Private_Dirty")
}

/// Seconds of processor time that the process has used.
pub fn processor_time(pid: i32) -> io::Result<f64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path)?;
    let nanoseconds: Option<f64> = text.split_whitespace().next().and_then(|first| first.parse().ok());
    nanoseconds.map(|time| time / 1e9).ok_or_else(|| io::Error::other(format!("{path}: {text}")))
}

fn value(pid: i32, file: &str, key: &str) -> io::Result<f64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path)?;
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = found.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
    kib.ok_or_else(|| io::Error::other(format!("{path} has no {key}")))
}
