//! Filters of system calls (`seccomp(2)`), and which calls the server's processes may make.
//!
//! A filter sees numbers and arguments, but neither the process nor what a pointer points to. It is inherited by fork at no
//! cost, and each further one in a child costs 40 to 110 µs. So all processes of the server have the same filter, of
//! [`SERVER`], and a process that can do without a part of it adds a filter of its own.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// A call, and the checks that its arguments must pass. Another rule may have other checks for the same call.
pub(super) type Rule<'a> = (libc::c_long, &'a [Check]);

/// A check of the argument with this index.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    /// Its low 32 bits are this value.
    Is(u8, libc::c_int),
    /// Its low 32 bits are not this value.
    IsNot(u8, libc::c_int),
    /// It is a descriptor above this one.
    Above(u8, libc::c_int),
    /// It has none of these flags.
    Lacks(u8, libc::c_int),
    IsNull(u8),
}
use Check::{Above, Is, IsNot, IsNull, Lacks};

/// A process can do nothing to the log but write: what was written stays. A confined handler can neither make nor receive a
/// descriptor above this one, so it cannot reach the log by another number.
const NOT_THE_LOG: &[Check] = &[Above(0, libc::STDERR_FILENO)];
/// If the log is a terminal, a background process that reads from it stops its whole process group, the acceptor included. A
/// handler may read from the two descriptors below, which are never the log.
const NOT_FROM_THE_LOG: &[Check] = &[IsNot(0, libc::STDERR_FILENO)];
const SELF: &[Check] = &[Is(0, 0)];
/// How glibc forks. No thread and no namespace is made.
const FORK: libc::c_int = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
const ANY: &[Check] = &[];

/// What a session needs: its descriptors, memory, time, the end.
pub(super) const SESSION: &[Rule<'_>] = &[
    (libc::SYS_read, NOT_FROM_THE_LOG),
    (libc::SYS_write, ANY),
    (libc::SYS_writev, ANY),
    (libc::SYS_recvfrom, NOT_THE_LOG),
    (libc::SYS_sendto, NOT_THE_LOG),
    (libc::SYS_shutdown, NOT_THE_LOG),
    (libc::SYS_close, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, ANY),
    (libc::SYS_ppoll, ANY),
    // With priority 0: no request overtakes those of others.
    (libc::SYS_mq_timedsend, &[Is(3, 0)]),
    (libc::SYS_futex, ANY),
    // Memory: it must not become executable, and no new memory is shared.
    (libc::SYS_brk, ANY),
    (libc::SYS_mmap, &[Lacks(2, libc::PROT_EXEC), Lacks(3, libc::MAP_SHARED)]),
    (libc::SYS_mprotect, &[Lacks(2, libc::PROT_EXEC)]),
    (libc::SYS_munmap, ANY),
    (libc::SYS_mremap, ANY),
    (libc::SYS_madvise, ANY),
    (libc::SYS_clock_gettime, ANY),
    (libc::SYS_gettimeofday, ANY),
    (libc::SYS_getpid, ANY),
    (libc::SYS_gettid, ANY),
    (libc::SYS_rt_sigprocmask, ANY),
    (libc::SYS_rt_sigreturn, ANY),
    (libc::SYS_sigaltstack, ANY),
    (libc::SYS_restart_syscall, ANY),
    (libc::SYS_exit, ANY),
    (libc::SYS_exit_group, ANY),
];

/// Calls that reach other processes and files. Handlers do not need them: a filter refuses them where Landlock does not.
pub(super) const STRANGERS: &[Rule<'_>] = &[
    (libc::SYS_kill, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, ANY),
    (libc::SYS_openat, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, ANY),
    (libc::SYS_unlinkat, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, ANY),
    #[cfg(target_arch = "aarch64")]
    (libc::SYS_renameat, ANY),
    (libc::SYS_renameat2, ANY),
];

/// Calls that storage does not need: for new clients, children and other users.
pub(super) const NOT_FOR_STORAGE: &[Rule<'_>] = &[
    (libc::SYS_clone, &[Is(0, FORK)]),
    (libc::SYS_socketpair, ANY),
    (libc::SYS_accept4, ANY),
    (libc::SYS_listen, ANY),
    (libc::SYS_setgroups, ANY),
    (libc::SYS_setresgid, ANY),
    (libc::SYS_setresuid, ANY),
];

/// What else acceptor, storage and handlers need once the server has started.
const OTHER: &[Rule<'_>] = &[
    // Descriptors. O_NONBLOCK is set when one is made, and never changed: all its holders share the flag.
    (libc::SYS_readv, NOT_FROM_THE_LOG),
    (libc::SYS_close_range, ANY),
    (libc::SYS_dup, NOT_THE_LOG),
    // Waiting.
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, ANY),
    (libc::SYS_epoll_pwait, ANY),
    (libc::SYS_epoll_create1, ANY),
    (libc::SYS_epoll_ctl, ANY),
    (libc::SYS_signalfd4, ANY),
    (libc::SYS_clock_nanosleep, ANY),
    (libc::SYS_nanosleep, ANY),
    (libc::SYS_sched_yield, ANY),
    // Clients, the control socket, reply pipes, the queue. Standard error may be a socket too.
    (libc::SYS_getsockname, ANY),
    (libc::SYS_getpeername, ANY),
    (libc::SYS_getsockopt, ANY),
    (libc::SYS_recvmsg, NOT_THE_LOG),
    (libc::SYS_sendmsg, NOT_THE_LOG),
    (libc::SYS_pipe2, ANY),
    (libc::SYS_mq_timedreceive, ANY),
    // Only asks.
    (libc::SYS_mq_getsetattr, &[IsNull(1)]),
    // Storage's files, and the time zone.
    (libc::SYS_fstat, ANY),
    (libc::SYS_newfstatat, ANY),
    (libc::SYS_statx, ANY),
    (libc::SYS_getdents64, ANY),
    (libc::SYS_getcwd, ANY),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, ANY),
    (libc::SYS_readlinkat, ANY),
    (libc::SYS_pread64, NOT_THE_LOG),
    (libc::SYS_lseek, NOT_THE_LOG),
    (libc::SYS_ftruncate, NOT_THE_LOG),
    (libc::SYS_fsync, NOT_THE_LOG),
    (libc::SYS_fdatasync, NOT_THE_LOG),
    (libc::SYS_fcntl, &[Above(0, libc::STDERR_FILENO), Is(1, libc::F_SETLK)]),
    (libc::SYS_fcntl, &[Is(1, libc::F_GETLK)]),
    // Processes: the acceptor's children, and how a handler confines itself.
    (libc::SYS_wait4, ANY),
    (libc::SYS_getppid, ANY),
    (libc::SYS_geteuid, ANY),
    (libc::SYS_set_robust_list, ANY),
    // No child can outlive the acceptor.
    (libc::SYS_prctl, &[Is(0, libc::PR_SET_PDEATHSIG), Is(1, libc::SIGKILL)]),
    (libc::SYS_prctl, &[Is(0, libc::PR_SET_NO_NEW_PRIVS)]),
    (libc::SYS_seccomp, ANY),
    (libc::SYS_landlock_create_ruleset, ANY),
    (libc::SYS_landlock_add_rule, ANY),
    (libc::SYS_landlock_restrict_self, ANY),
    (libc::SYS_capget, ANY),
    (libc::SYS_capset, ANY),
    (libc::SYS_prlimit64, SELF),
    (libc::SYS_sched_setscheduler, &[Is(0, 0), Is(1, libc::SCHED_BATCH)]),
    // Signals and random numbers.
    (libc::SYS_rt_sigaction, ANY),
    (libc::SYS_getrandom, ANY),
];

/// All that the server's processes need. A handler that was taken over can make all these calls. So none of them may change
/// what other processes use: the flags of a shared descriptor, the log, the limits or the scheduling of another process.
/// `kill` and files are refused to handlers by Landlock or by the filter of [`STRANGERS`].
pub(super) const SERVER: &[&[Rule<'_>]] = &[SESSION, STRANGERS, NOT_FOR_STORAGE, OTHER];

/// Fails a call with EPERM.
const REFUSE: SeccompAction = SeccompAction::Errno(libc::EPERM.cast_unsigned());

/// Makes a filter that allows these calls and fails all others with EPERM. There is none for an architecture that the
/// crate does not know.
pub(super) fn allow(rules: &[&[Rule<'_>]]) -> Option<BpfProgram> {
    filter(rules, REFUSE, SeccompAction::Allow)
}

/// Makes a filter that fails these calls with EPERM and leaves all others to the filters before it.
pub(super) fn refuse(rules: &[&[Rule<'_>]]) -> Option<BpfProgram> {
    filter(rules, SeccompAction::Allow, REFUSE)
}

fn filter(rules: &[&[Rule<'_>]], otherwise: SeccompAction, matching: SeccompAction) -> Option<BpfProgram> {
    let mut calls: BTreeMap<libc::c_long, Vec<SeccompRule>> = BTreeMap::new();
    for (call, checks) in rules.iter().copied().flatten() {
        let alternatives = calls.entry(*call).or_default();
        if !checks.is_empty() {
            let conditions = checks.iter().map(|check| check.condition()).collect::<Option<_>>()?;
            alternatives.push(SeccompRule::new(conditions).ok()?);
        }
    }
    let architecture = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    SeccompFilter::new(calls, otherwise, matching, architecture).ok()?.try_into().ok()
}

impl Check {
    fn condition(self) -> Option<SeccompCondition> {
        use SeccompCmpArgLen::{Dword, Qword};
        let unsigned = |value: libc::c_int| u64::from(value.cast_unsigned());
        let (argument, length, operator, value) = match self {
            Is(argument, value) => (argument, Dword, SeccompCmpOp::Eq, unsigned(value)),
            IsNot(argument, value) => (argument, Dword, SeccompCmpOp::Ne, unsigned(value)),
            Above(argument, value) => (argument, Dword, SeccompCmpOp::Gt, unsigned(value)),
            Lacks(argument, flags) => (argument, Dword, SeccompCmpOp::MaskedEq(unsigned(flags)), 0),
            IsNull(argument) => (argument, Qword, SeccompCmpOp::Eq, 0),
        };
        SeccompCondition::new(argument, length, operator, value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_stands_beside_one_that_allows_all_arguments() {
        let rules = SERVER.concat();
        let mut all = rules.iter().filter(|(_, checks)| checks.is_empty());
        let alone = |call| rules.iter().filter(|(other, _)| *other == call).count() == 1;
        assert!(all.all(|(call, _)| alone(*call)));
    }
}
