//! What processes hold, as `/proc` shows it. All sizes are in KiB.

use std::fs;
use std::io;
use std::path::Path;

/// The children of a process that live.
pub fn children_of(parent: i32) -> io::Result<Vec<i32>> {
    let processes = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(processes.filter(|pid| parent_of(*pid) == Some(parent)).collect())
}

/// `pid (name) state ppid ..`; the name may hold anything. None for one that has ended.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

/// Whether the process has that file open.
pub fn has_open(pid: i32, file: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == file))
}

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
