//! Confinement: a handler parses bytes from strangers, so it gives up what it does not need. All other processes of the
//! server give up what they do not need either.
//!
//! | layer | takes away | from | see |
//! |---|---|---|---|
//! | identity | root, its capabilities, and signals to other processes: each handler gets a user number of its own | all handlers of a server that is root | `setresuid(2)` |
//! | limits | new descriptors of any kind, new processes, much memory, core dumps | all handlers | `getrlimit(2)` |
//! | no new privileges | what set-user-ID programs would give | all processes | `PR_SET_NO_NEW_PRIVS(2const)` |
//! | Landlock | files, TCP, signals to other processes and their traces | all handlers | `landlock(7)` |
//! | seccomp | all system calls that a server does not need ([`seccomp::SERVER`]) | all processes; handlers inherit it | `seccomp(2)` |
//! | | all that a session does not need | sessions; a filter of its own costs more than a classic message is worth | |
//! | | files and signals again | handlers without the whole of Landlock | |
//! | all of these | signals, processes, connections, capabilities but those for files, files to write outside of the folder of the bets | storage | `capabilities(7)` |
//! | all but seccomp for sessions | as from handlers; it can still receive descriptors | the keeper of the private key | |
//!
//! Each layer is applied as far as the kernel and the container provide it. At the start a child finds out how far that is
//! ([`Confinement::probe`]). A handler that is confined less than that child ends without serving its client.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Pid, Uid, close, geteuid, getpid, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, apply_filter};
use serde::{Deserialize, Serialize};

use super::process::{die_with, run_in_child};
use super::seccomp;

/// How far a layer applies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// This kernel or container lacks it.
    #[default]
    None,
    /// This kernel or container has only a part of it.
    Partial,
    Full,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What confines a handler, as STATUS and the log report it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfinementReport {
    /// Full: the handler is not root, and no other process has its user number. Partial: it is not root.
    pub identity: Coverage,
    /// It can make no descriptor and no process.
    pub limits: Coverage,
    /// It can reach no file, no network and no other process.
    pub landlock: Coverage,
    /// It has only the system calls that the server needs; in a session, only those that a session needs.
    pub seccomp: Coverage,
}

impl fmt::Display for ConfinementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, limits, landlock, seccomp } = self;
        write!(f, "identity {identity}, limits {limits}, landlock {landlock}, seccomp {seccomp}")
    }
}

/// The layers, ready to be applied.
#[derive(Debug)]
pub struct Confinement {
    /// Made once; each handler inherits it.
    ruleset: Option<OwnedFd>,
    /// None where seccomp is missing.
    filters: Option<Filters>,
    /// What confines each handler.
    pub report: ConfinementReport,
}

/// Filters are made once. A handler installs them with one call each.
#[derive(Debug)]
struct Filters {
    server: BpfProgram,
    session: BpfProgram,
    strangers: BpfProgram,
}

impl Filters {
    fn new() -> Option<Self> {
        Some(Self {
            server: seccomp::allow(seccomp::SERVER)?,
            session: seccomp::allow(&[seccomp::SESSION])?,
            strangers: seccomp::refuse(&[seccomp::STRANGERS])?,
        })
    }
}

/// No system gives user numbers from this one on to users, services or containers. A handler's number is this plus its pid.
const FIRST_UID: u32 = 0x7e00_0000;
/// The user without any rights, for user namespaces that lack the number above.
const NOBODY: u32 = 65_534;
/// The limit of descriptors: a new one gets a number below it, and `poll(2)` takes no more than this many. A handler has all
/// three numbers below it in use, so it can make a descriptor only after it has closed one of them.
const HANDLER_DESCRIPTORS: u64 = 3;
/// Much more than the longest message needs, in bytes. With more, a handler that was taken over could use up the machine's
/// memory, and the kernel could kill other processes for it.
const HANDLER_MEMORY: u64 = 64 << 20;
/// The limits of handlers.
const HANDLER_LIMITS: [(Resource, u64); 4] = [
    (Resource::RLIMIT_CORE, 0),
    (Resource::RLIMIT_NPROC, 0),
    (Resource::RLIMIT_NOFILE, HANDLER_DESCRIPTORS),
    (Resource::RLIMIT_DATA, HANDLER_MEMORY),
];
/// The limits of the keeper, which still receives descriptors.
const KEEPER_LIMITS: [(Resource, u64); 2] = [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_NPROC, 0)];
/// The newest version of Landlock that is used: the first with scopes for signals.
const LANDLOCK: ABI = ABI::V6;

impl Confinement {
    /// Prepares the layers, and finds out in a child how far each can be applied.
    pub fn probe() -> io::Result<Self> {
        let ruleset = empty_ruleset().ok().and_then(Into::into);
        let mut this = Self { ruleset, filters: Filters::new(), report: ConfinementReport::default() };
        let parent = getpid();
        let (reader, writer) = io::pipe()?;
        run_in_child(&[writer.as_fd()], || {
            let mut report = apply(parent, probe_landlock, &HANDLER_LIMITS).unwrap_or_default();
            let applies = |Filters { server, strangers, session }: &Filters| {
                [server, strangers, session].into_iter().all(|filter| apply_filter(filter).is_ok())
            };
            if this.filters.as_ref().is_some_and(applies) {
                report.seccomp = Coverage::Full;
            }
            serde_json::to_writer(&writer, &report).unwrap_or_default();
        })?;
        drop(writer);
        // If the child has written no report, no layer is known to work.
        this.report = serde_json::from_reader(reader).unwrap_or_default();
        if this.report.seccomp == Coverage::None {
            this.filters = None;
        }
        Ok(this)
    }

    /// The descriptor that a handler must inherit, if there is one.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.ruleset.as_ref().map(AsFd::as_fd)
    }

    /// Confines the acceptor, which calls this, and all its children: they keep only the system calls that the server needs,
    /// and can get no new privileges. Call it after start-up: afterwards no socket and no queue can be opened.
    pub fn enter_server(&self) -> io::Result<()> {
        // Where this fails, Landlock and seccomp do too.
        set_no_new_privs().unwrap_or_default();
        self.apply_filter(|filters| &filters.server)
    }

    /// Confines the storage service, which calls this once it has opened the files of `bets`: it loses what only the acceptor
    /// and handlers need, and can write only in the folder of the bets.
    pub fn enter_storage(&self, bets: &Path) -> io::Result<()> {
        keep_capabilities_for_files()?;
        if self.report.landlock != Coverage::None {
            restrict_writes(bets).map_err(io::Error::other)?;
        }
        if self.filters.is_none() {
            return Ok(());
        }
        let others = [seccomp::Check::IsNot(0, getpid().as_raw())];
        let filter = seccomp::refuse(&[seccomp::NOT_FOR_STORAGE, &[(libc::SYS_kill, &others)]]);
        require("seccomp", filter.is_some_and(|filter| apply_filter(&filter).is_ok()))
    }

    /// Confines this process, a handler and child of `parent`, for good. It must already have all its descriptors.
    pub fn enter_handler(&self, parent: Pid) -> io::Result<()> {
        self.enter(parent, &HANDLER_LIMITS)
    }

    /// Confines this process, the keeper and a child of `parent`, for good.
    pub fn enter_keeper(&self, parent: Pid) -> io::Result<()> {
        self.enter(parent, &KEEPER_LIMITS)
    }

    /// Fails if a layer covers less than in the probe.
    fn enter(&self, parent: Pid, limits: &[(Resource, u64)]) -> io::Result<()> {
        let reached = apply(parent, || self.apply_landlock(), limits)?;
        require("identity", reached.identity >= self.report.identity)?;
        require("limits", reached.limits >= self.report.limits)?;
        require("Landlock", reached.landlock >= self.report.landlock)?;
        if self.report.landlock == Coverage::Full {
            return Ok(());
        }
        // What Landlock does not refuse here.
        self.apply_filter(|filters| &filters.strangers)
    }

    /// Leaves this process, which is confined already, only the system calls that a session needs.
    pub fn enter_session(&self) -> io::Result<()> {
        self.apply_filter(|filters| &filters.session)
    }

    fn apply_filter(&self, select: impl Fn(&Filters) -> &BpfProgram) -> io::Result<()> {
        require("seccomp", self.filters.as_ref().is_none_or(|filters| apply_filter(select(filters)).is_ok()))
    }

    /// Applies the inherited ruleset.
    fn apply_landlock(&self) -> Coverage {
        let Some(ruleset) = &self.ruleset else { return Coverage::None };
        // SAFETY: takes two numbers, and changes nothing but what this process may do: see landlock_restrict_self(2).
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        // The descriptor is not needed any more. Its owner is a value of the parent, whose destructor never runs in a child.
        let closed = close(ruleset.as_raw_fd());
        if done == 0 && closed.is_ok() { self.report.landlock } else { Coverage::None }
    }
}

/// Applies all layers except seccomp.
fn apply(
    parent: Pid,
    landlock: impl FnOnce() -> Coverage,
    limits: &[(Resource, u64)],
) -> io::Result<ConfinementReport> {
    let identity = drop_privileges();
    // The change of user has undone what `fork_child` did.
    die_with(parent)?;
    let landlock = landlock();
    // The limits come last: the probe of Landlock needs a descriptor for a moment.
    let set = limits.iter().filter(|(resource, limit)| setrlimit(*resource, *limit, *limit).is_ok());
    let limits = if set.count() == limits.len() { Coverage::Full } else { Coverage::Partial };
    Ok(ConfinementReport { identity, limits, landlock, seccomp: Coverage::None })
}

fn require(layer: &str, is_reached: bool) -> io::Result<()> {
    if is_reached {
        return Ok(());
    }
    Err(io::Error::other(format!("the process could not be confined: {layer}")))
}

/// Becomes a user that no other process has, or at least one without any rights.
fn drop_privileges() -> Coverage {
    if !geteuid().is_root() {
        return Coverage::Partial;
    }
    let own = FIRST_UID.saturating_add(getpid().as_raw().unsigned_abs());
    if become_user(own).is_ok() {
        Coverage::Full
    } else if become_user(NOBODY).is_ok() {
        Coverage::Partial
    } else {
        Coverage::None
    }
}

fn become_user(id: u32) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    // The kernel takes all capabilities when the last of the three user numbers changes from root's.
    setresuid(user, user, user)
}

/// Gives up all capabilities but those to reach every file: see `capabilities(7)`. The files may be of any user.
fn keep_capabilities_for_files() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    const DAC_OVERRIDE: u32 = 1 << 1;
    const DAC_READ_SEARCH: u32 = 1 << 2;
    const FOWNER: u32 = 1 << 3;
    // The version, and the process: 0 is this one.
    let mut header = [VERSION_3, 0];
    // The lower halves of the effective, the permitted and the inheritable set, then the upper halves.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: both have the layout that the call reads and writes, and live through it.
    let read = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    let [[_, permitted, _], _] = sets;
    let kept = permitted & (DAC_OVERRIDE | DAC_READ_SEARCH | FOWNER);
    sets = [[kept, kept, 0], [0; 3]];
    // SAFETY: as above. It changes nothing but what this process may do.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if read == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets this process write only in the folder of this file, and in that of the file that it links to. It may read all files,
/// because the time zone's file may be anywhere.
fn restrict_writes(file: &Path) -> Result<(), RulesetError> {
    let paths = [Some(file.to_owned()), file.canonicalize().ok()];
    let folders = paths.iter().flatten().filter_map(|path| path.parent());
    let folders = folders.map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    empty_ruleset()?
        .add_rules(path_beneath_rules(["/"], AccessFs::from_read(LANDLOCK)))?
        .add_rules(path_beneath_rules(folders, AccessFs::from_all(LANDLOCK)))?
        .restrict_self()
        .map(drop)
}

/// Makes a Landlock ruleset that handles all that Landlock can, and allows none of it.
fn empty_ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()
}

fn probe_landlock() -> Coverage {
    match empty_ruleset().and_then(RulesetCreated::restrict_self).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => Coverage::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Coverage::Partial,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Coverage::None,
    }
}
