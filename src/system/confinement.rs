//! Confinement: a process that parses bytes from strangers gives up what it does not need.
//!
//! | layer | takes away | for | see |
//! |---|---|---|---|
//! | identity | root, its capabilities, and every other process as a target: each handler gets a user number of its own | all handlers of a server that is root | `setresuid(2)` |
//! | limits | new descriptors of any kind, new processes, core dumps | all handlers | `getrlimit(2)` |
//! | no new privileges | what set-user-ID programs would give | all handlers | `PR_SET_NO_NEW_PRIVS(2const)` |
//! | Landlock | files, TCP, signals and traces to any process outside | all handlers | `landlock(7)` |
//! | seccomp | all system calls but those that a session needs | sessions; it costs more than a classic message is worth | `seccomp(2)` |
//!
//! Each layer is applied as far as the kernel and the container have it. What that is, is found out once, by a child
//! that tries ([`Confinement::try_out`]); a handler in which a layer fails that could be had then serves nobody.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

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

use super::process::{Exit, die_with, run_in_child};
use crate::confinement::{Extent, InForce};

/// The layers, ready to be applied.
pub struct Confinement {
    /// Made once, for all handlers: each inherits it.
    ruleset: Option<OwnedFd>,
    session_filter: Option<BpfProgram>,
    in_force: InForce,
}

impl fmt::Debug for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confinement").field("in_force", &self.in_force).finish_non_exhaustive()
    }
}

/// Numbers that no system gives to users, services or containers. A handler's is this and its process number.
const FIRST_UID: u32 = 0x7e00_0000;
/// The user that has nothing, where such a number can't be had: inside of a user namespace.
const NOBODY: u32 = 65_534;
/// The newest Landlock that is asked for: the first with scopes for signals.
const LANDLOCK: ABI = ABI::V6;

impl Confinement {
    /// Prepares the layers, and finds out in a child which of them can be had.
    ///
    /// # Errors
    /// The child can't be made.
    pub fn try_out() -> io::Result<Self> {
        let ruleset = nothing_allowed().ok().and_then(Into::into);
        let mut this = Self { ruleset, session_filter: filter(SESSION_CALLS), in_force: InForce::NOTHING };
        let parent = getpid();
        let tried = run_in_child(&[], || {
            let mut reached = apply(parent, try_landlock).unwrap_or(InForce::NOTHING);
            reached.seccomp = this.apply_session();
            reached.to_status()
        })?;
        if let Exit::Status(status) = tried {
            this.in_force = InForce::from_status(status);
        }
        Ok(this)
    }

    /// What will confine each handler.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        self.in_force
    }

    /// The descriptor that a handler has to inherit, if there is one.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.ruleset.as_ref().map(AsFd::as_fd)
    }

    /// Confines this process, a child of `parent`, for good. It must have all its descriptors by now.
    ///
    /// # Errors
    /// A layer failed that was there when it was tried.
    pub fn enter(&self, parent: Pid) -> io::Result<()> {
        let reached = apply(parent, || self.restrict())?;
        let wanted = self.in_force;
        let missing = [
            ("identity", reached.identity < wanted.identity),
            ("limits", reached.limits < wanted.limits),
            ("Landlock", reached.landlock < wanted.landlock),
        ];
        check_missing(&missing)
    }

    /// Takes this process, which is confined already, all system calls but those of a session.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub fn enter_session(&self) -> io::Result<()> {
        let reached = if self.in_force.seccomp == Extent::None { Extent::None } else { self.apply_session() };
        check_missing(&[("seccomp", reached < self.in_force.seccomp)])
    }

    /// Landlock as it was tried, if the kernel takes it again.
    fn restrict(&self) -> Extent {
        let Some(ruleset) = &self.ruleset else { return Extent::None };
        // SAFETY: takes two numbers, and changes nothing but what this process may do: see landlock_restrict_self(2).
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        // Of no more use here. The owner is the parent's value, whose destructor never runs in a child.
        let closed = close(ruleset.as_raw_fd());
        if done == 0 && closed.is_ok() { self.in_force.landlock } else { Extent::None }
    }

    fn apply_session(&self) -> Extent {
        let applied = self.session_filter.as_ref().is_some_and(|filter| apply_filter(filter).is_ok());
        if applied { Extent::Full } else { Extent::None }
    }
}

/// Applies all layers but that of sessions.
fn apply(parent: Pid, landlock: impl FnOnce() -> Extent) -> io::Result<InForce> {
    let identity = give_up_identity();
    // A change of user clears what ties it to its parent.
    die_with(parent)?;
    set_no_new_privs()?;
    let landlock = landlock();
    // Last, as trying Landlock needs a descriptor for a moment.
    Ok(InForce { identity, limits: set_limits(), landlock, seccomp: Extent::None })
}

fn check_missing(layers: &[(&str, bool)]) -> io::Result<()> {
    match layers.iter().find(|(_, missing)| *missing) {
        Some((layer, _)) => Err(io::Error::other(format!("the handler could not be confined: {layer}"))),
        None => Ok(()),
    }
}

/// Becomes a user that nobody else is, or at least one that has nothing.
fn give_up_identity() -> Extent {
    if !geteuid().is_root() {
        return Extent::Partial;
    }
    let own = FIRST_UID.saturating_add(getpid().as_raw().unsigned_abs());
    if become_user(own).is_ok() {
        Extent::Full
    } else if become_user(NOBODY).is_ok() {
        Extent::Partial
    } else {
        Extent::None
    }
}

fn become_user(id: u32) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    // With the last user number that is root's go all capabilities.
    setresuid(user, user, user)
}

fn set_limits() -> Extent {
    let all = [Resource::RLIMIT_CORE, Resource::RLIMIT_NPROC, Resource::RLIMIT_NOFILE];
    let set = all.into_iter().filter(|resource| setrlimit(*resource, 0, 0).is_ok()).count();
    if set == all.len() { Extent::Full } else { Extent::Partial }
}

/// Landlock, with all that it can handle, and no rule that would allow any of it.
fn nothing_allowed() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()
}

fn try_landlock() -> Extent {
    match nothing_allowed().and_then(RulesetCreated::restrict_self).map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced) => Extent::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Extent::Partial,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Extent::None,
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

/// Those calls, and memory that can't be executed. All else fails with EPERM.
fn filter(calls: &[libc::c_long]) -> Option<BpfProgram> {
    let mut rules: Vec<(libc::c_long, Vec<SeccompRule>)> =
        calls.iter().map(|call| (*call, Vec::new())).collect();
    let executable = u64::try_from(libc::PROT_EXEC).ok()?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable =
            SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0).ok()?;
        rules.push((call, vec![SeccompRule::new(vec![not_executable]).ok()?]));
    }
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).ok()?);
    let architecture = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let rules = rules.into_iter().collect();
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_filter_for_this_architecture() {
        assert!(filter(SESSION_CALLS).is_some());
    }
}
