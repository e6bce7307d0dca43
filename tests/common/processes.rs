//! The processes of a server, as `/proc` shows them.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How to start a program as process 1 of a PID namespace, as root: see `Setup::started_by`.
pub const AS_PROCESS_1: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child"];

/// A process that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
}

/// All that live. One that has ended and only waits to be reaped does not.
pub fn living() -> Vec<Process> {
    all().filter_map(|(process, lives)| lives.then_some(process)).collect()
}

/// How many children of a process have ended, and wait for it to reap them.
pub fn unreaped_children_of(parent: i32) -> usize {
    all().filter(|(process, lives)| process.parent == parent && !lives).count()
}

/// All that there are, and whether each lives.
fn all() -> impl Iterator<Item = (Process, bool)> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| parse_stat(&fs::read_to_string(entry.ok()?.path().join("stat")).ok()?))
}

/// `pid (name) state ppid pgrp ..`; the name may hold anything.
fn parse_stat(stat: &str) -> Option<(Process, bool)> {
    let (pid, _) = stat.split_once(" (")?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    let process = Process {
        pid: pid.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    };
    Some((process, !matches!(state, "Z" | "X")))
}

/// The members of a process group.
pub fn in_group(group: i32) -> Vec<i32> {
    living().into_iter().filter(|process| process.group == group).map(|process| process.pid).collect()
}

/// The children of a process.
pub fn children_of(parent: i32) -> Vec<i32> {
    living().into_iter().filter(|process| process.parent == parent).map(|process| process.pid).collect()
}

/// Whether the process has the file open.
pub fn has_open(pid: i32, file: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == file))
}

/// Whether the process has begun to run, and blocks SIGTERM: from then on the signal is its own affair.
pub fn blocks_sigterm(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (Signal::SIGTERM as u32 - 1)) != 0
}

/// Whether the process runs the program under test, and no longer the shell that starts it.
pub fn is_loteria(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "loteria\n")
}

/// What the process does, as a letter: `D` if it sleeps in the kernel and can't be woken.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Sends a signal to a process that may have ended.
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).ok();
}

/// Kills what is left of a group.
pub fn kill_group(group: i32) {
    killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
}
