//! The processes of a server and what they use, as `/proc` shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{RunningServer, until};

/// The command that starts a program as process 1 of a PID namespace, for `Setup::started_by`. It needs root.
pub const AS_PROCESS_1: [&str; 4] = ["unshare", "--pid", "--fork", "--kill-child"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
}

/// All processes that live. A zombie does not live.
pub fn living() -> Vec<Process> {
    all().filter_map(|(process, lives)| lives.then_some(process)).collect()
}

/// Counts the zombies among the children of a process.
pub fn unreaped_children_of(parent: i32) -> usize {
    all().filter(|(process, lives)| process.parent == parent && !lives).count()
}

/// All processes, zombies included, and whether each lives.
fn all() -> impl Iterator<Item = (Process, bool)> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| parse_stat(&fs::read_to_string(entry.ok()?.path().join("stat")).ok()?))
}

/// Parses `pid (name) state ppid pgrp ..`. The name may contain spaces and parentheses.
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

/// The living members of a process group.
pub(crate) fn in_group(group: i32) -> Vec<i32> {
    living().into_iter().filter(|process| process.group == group).map(|process| process.pid).collect()
}

/// The living children of a process.
pub fn children_of(parent: i32) -> Vec<i32> {
    living().into_iter().filter(|process| process.parent == parent).map(|process| process.pid).collect()
}

/// The descriptors of a process and their targets. Empty if the process has ended.
pub fn descriptors(pid: i32) -> BTreeMap<i32, String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeMap::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let targets = paths.filter_map(|path| {
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, fs::read_link(path).ok()?.to_string_lossy().into_owned()))
    });
    targets.collect()
}

/// Whether the process has the file open.
pub fn has_open(pid: i32, file: &Path) -> bool {
    descriptors(pid).values().any(|target| Path::new(target) == file)
}

/// Whether the process blocks SIGTERM: from then on the program itself handles the signal.
pub fn blocks_sigterm(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (Signal::SIGTERM as u32 - 1)) != 0
}

/// Whether the process runs the program under test. Before that it runs the shell that starts the program.
pub fn is_loteria(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "loteria\n")
}

/// The state of the process as a letter: `D` is uninterruptible sleep.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Sends a signal to a process that may have ended.
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).ok();
}

/// Kills all members of a process group.
pub(crate) fn kill_group(group: i32) {
    killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
}

/// The unit of the times in `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// How long `are_idle` watches the processes.
const WATCHED: Duration = Duration::from_millis(300);
/// The CPU time that an idle process may use meanwhile. A busy loop uses most of the time, even if two others share its core.
const IDLE: Duration = Duration::from_millis(30);
/// How often `assert_idle` watches: on a busy machine a process takes a while to finish its work.
const WATCHES: u32 = 4;

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub resident_kib: u64,
    pub descriptors: usize,
}

impl Usage {
    /// The usage of a process now. None if it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // A zombie has no memory and no such line.
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Some(Self { resident_kib, descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() })
    }
}

/// The memory that only this process uses, in KiB.
pub fn private_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    kib(&rollup, "Private_Clean:") + kib(&rollup, "Private_Dirty:")
}

/// The most memory that this process has used so far, shared pages included, in KiB.
pub fn peak_kib(pid: i32) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "VmHWM:")
}

/// The number behind `key` in a file of `/proc`.
fn kib(text: &str, key: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The CPU time of a process. None if it has ended.
fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    // `rest` begins with field 3, the state. Fields 14 and 15 are user and system time.
    let ticks: u32 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    Some(TICK * ticks)
}

/// Panics unless all these processes become idle.
#[track_caller]
pub fn assert_idle(pids: &[i32]) {
    assert!((0..WATCHES).any(|_| are_idle(pids)), "processes {pids:?} are busy");
}

/// Watches these processes for 300 ms. They are idle if each still lives and has used hardly any CPU time.
pub fn are_idle(pids: &[i32]) -> bool {
    let before: Vec<Option<Duration>> = pids.iter().map(|pid| cpu_time(*pid)).collect();
    std::thread::sleep(WATCHED);
    pids.iter().zip(before).all(|(pid, before)| {
        let used = before.and_then(|before| cpu_time(*pid)?.checked_sub(before));
        used.is_some_and(|used| used <= IDLE)
    })
}

/// What acceptor and storage service use.
pub fn usage_of(server: &RunningServer) -> [Usage; 2] {
    [server.pid(), server.storage()].map(|pid| Usage::of(pid).expect("a living process"))
}

/// Waits until no handler lives. Then acceptor and storage service must be idle and use about what they used before.
#[track_caller]
pub fn assert_nothing_left(server: &RunningServer, before: [Usage; 2]) {
    server.wait_for_handlers(0);
    until("all descriptors are closed", || {
        usage_of(server).iter().zip(before).all(|(now, before)| now.descriptors <= before.descriptors)
    });
    for (now, before) in usage_of(server).iter().zip(before) {
        let grown = now.resident_kib.saturating_sub(before.resident_kib);
        assert!(grown <= 4096, "memory grew from {before:?} to {now:?}");
    }
    assert_idle(&[server.pid(), server.storage()]);
}

/// The signals that end the program. SIGHUP is none where this process ignores it, as under `nohup`: its children do too.
pub fn termination_signals() -> Vec<Signal> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    let mut signals = vec![Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
    if ignored & 1 == 0 {
        signals.push(Signal::SIGHUP);
    }
    signals
}

/// Whether the memory of a process contains these bytes.
pub fn has_in_memory(pid: i32, bytes: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let ranges = maps.lines().filter(|line| line.contains(" rw")).map(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        [from, to].map(|number| u64::from_str_radix(number, 16).unwrap())
    });
    ranges.into_iter().any(|[from, to]| {
        let mut content = Vec::new();
        memory.seek(SeekFrom::Start(from)).unwrap();
        // Some mappings of the kernel can't be read.
        (&mut memory).take(to - from).read_to_end(&mut content).ok();
        contains(&content, bytes)
    })
}

/// As `windows`, but by a search of the standard library, which is fast in every build.
fn contains(content: &[u8], bytes: &[u8]) -> bool {
    let anchor = bytes.iter().position(|byte| *byte != 0).expect("bytes that are not all zeros");
    let (before, after) = (&bytes[..anchor], &bytes[anchor + 1..]);
    let mut rest = content;
    while rest.skip_until(bytes[anchor]).unwrap() > 0 {
        let at = content.len() - rest.len() - 1;
        if rest.starts_with(after) && content[..at].ends_with(before) {
            return true;
        }
    }
    false
}
