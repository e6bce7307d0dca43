//! Confinement: a handler parses bytes from strangers, so it gives up what it does not need.
//!
//! | layer | takes away | from | see |
//! |---|---|---|---|
//! | identity | root, its capabilities, and signals to other processes: each handler gets a user number of its own | all handlers of a server that is root | `setresuid(2)` |
//! | limits | new descriptors of any kind, new processes, core dumps | all handlers | `getrlimit(2)` |
//! | no new privileges | what set-user-ID programs would give | all handlers | `PR_SET_NO_NEW_PRIVS(2const)` |
//! | Landlock | files, TCP, signals to other processes and their traces | all handlers | `landlock(7)` |
//! | seccomp | all system calls except those that a session needs | sessions; it costs more than a classic message is worth | `seccomp(2)` |
//!
//! Each layer is applied as far as the kernel and the container provide it. A child finds out at the start how far that
//! is ([`Confinement::probe`]). A handler that gets less than that child serves nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetError, RulesetStatus,
    Scope,
};
use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Pid, Uid, close, geteuid, getpid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use serde::{Deserialize, Serialize};

use super::memory::SharedWords;
use super::process::{die_with, run_in_child};

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

impl Coverage {
    fn from_number(number: u64) -> Self {
        match number {
            2 => Self::Full,
            1 => Self::Partial,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        })
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
    /// In a session, it has only the system calls that it needs.
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
    session_filter: Option<BpfProgram>,
    report: ConfinementReport,
}

/// No system gives the numbers from here on to users, services or containers. A handler's is this plus its pid.
const FIRST_UID: u32 = 0x7e00_0000;
/// The user without any rights, for user namespaces that lack the number above.
const NOBODY: u32 = 65_534;
/// The newest version of Landlock that is used: the first with scopes for signals.
const LANDLOCK: ABI = ABI::V6;

impl Confinement {
    /// Prepares the layers, and finds out in a child how far each can be applied.
    pub fn probe() -> io::Result<Self> {
        let ruleset = empty_ruleset().ok().and_then(Into::into);
        let mut this =
            Self { ruleset, session_filter: session_filter(), report: ConfinementReport::default() };
        let parent = getpid();
        // If the child panics, these stay 0: no layer is known to work.
        let found = SharedWords::<4>::new()?;
        run_in_child(|| {
            let ConfinementReport { identity, limits, landlock, .. } =
                apply(parent, probe_landlock).unwrap_or_default();
            let reached = [identity, limits, landlock, this.apply_seccomp()];
            for (word, coverage) in found.iter().zip(reached) {
                word.store(coverage as u64, Ordering::Relaxed);
            }
        })?;
        let [identity, limits, landlock, seccomp] =
            found.each_ref().map(|word| Coverage::from_number(word.load(Ordering::Relaxed)));
        this.report = ConfinementReport { identity, limits, landlock, seccomp };
        Ok(this)
    }

    /// What confines each handler.
    pub fn report(&self) -> ConfinementReport {
        self.report
    }

    /// The descriptor that a handler must inherit, if there is one.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.ruleset.as_ref().map(AsFd::as_fd)
    }

    /// Confines this process, a child of `parent`, for good. It must already have all its descriptors. Fails if a layer
    /// covers less than in the probe.
    pub fn enter(&self, parent: Pid) -> io::Result<()> {
        let reached = apply(parent, || self.apply_landlock())?;
        require("identity", reached.identity, self.report.identity)?;
        require("limits", reached.limits, self.report.limits)?;
        require("Landlock", reached.landlock, self.report.landlock)
    }

    /// Leaves this process, which is confined already, only the system calls that a session needs.
    pub fn enter_session(&self) -> io::Result<()> {
        if self.report.seccomp == Coverage::None {
            return Ok(());
        }
        require("seccomp", self.apply_seccomp(), self.report.seccomp)
    }

    /// Applies the inherited ruleset.
    fn apply_landlock(&self) -> Coverage {
        let Some(ruleset) = &self.ruleset else { return Coverage::None };
        // SAFETY: takes two numbers, and changes nothing but what this process may do: see landlock_restrict_self(2).
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        // It is not needed any more. Its owner is the parent's value, whose destructor never runs in a child.
        let closed = close(ruleset.as_raw_fd());
        if done == 0 && closed.is_ok() { self.report.landlock } else { Coverage::None }
    }

    fn apply_seccomp(&self) -> Coverage {
        let applied = self.session_filter.as_ref().is_some_and(|filter| apply_filter(filter).is_ok());
        if applied { Coverage::Full } else { Coverage::None }
    }
}

/// Applies all layers except seccomp.
fn apply(parent: Pid, landlock: impl FnOnce() -> Coverage) -> io::Result<ConfinementReport> {
    let identity = drop_privileges();
    // The change of user has undone what `fork_child` did.
    die_with(parent)?;
    set_no_new_privs()?;
    let landlock = landlock();
    // The limits come last: the probe of Landlock needs a descriptor for a moment.
    let limits = set_limits();
    Ok(ConfinementReport { identity, limits, landlock, seccomp: Coverage::None })
}

fn require(layer: &str, reached: Coverage, wanted: Coverage) -> io::Result<()> {
    if reached < wanted {
        return Err(io::Error::other(format!("the handler could not be confined: {layer}")));
    }
    Ok(())
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

fn set_limits() -> Coverage {
    let all = [Resource::RLIMIT_CORE, Resource::RLIMIT_NPROC, Resource::RLIMIT_NOFILE];
    let set = all.into_iter().filter(|resource| setrlimit(*resource, 0, 0).is_ok()).count();
    if set == all.len() { Coverage::Full } else { Coverage::Partial }
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

/// The system calls that a session needs: its descriptors, memory, the shared mutex, time, the end.
const SESSION_CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_close,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_mq_timedsend,
    libc::SYS_futex,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Makes a filter that allows these calls, and memory that can't be executed. All other calls fail with EPERM. There is
/// none for an architecture that the crate does not know.
fn session_filter() -> Option<BpfProgram> {
    let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> =
        SESSION_CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let executable = u64::try_from(libc::PROT_EXEC).ok()?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable =
            SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0).ok()?;
        rules.insert(call, vec![SeccompRule::new(vec![not_executable]).ok()?]);
    }
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).ok()?);
    let architecture = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_filter_for_this_architecture() {
        assert!(session_filter().is_some());
    }
}
