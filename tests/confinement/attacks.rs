//! What a handler that was taken over tries against its neighbours, as root's and as an ordinary user's. In the second case
//! all processes of the server have one user, as in a container.

use std::fs;
use std::path::Path;

use common::hijack::{Hijacked, argument};
use common::processes::{descriptors, send};
use common::{Setup, bets, kind, until};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;

use super::attacker::{Attacker, assert_unharmed, run};

/// Each attack is a test as root and one as another user.
macro_rules! attacks {
    ($($attack:ident),* $(,)?) => {
        mod as_root {
            $(#[test] fn $attack() { super::run(Some(super::Setup::new()), super::$attack); })*
        }
        mod as_another_user {
            $(#[test] fn $attack() { super::run(super::Setup::new().with_user_of_its_own(), super::$attack); })*
        }
    };
}

attacks![
    no_flag_of_a_shared_descriptor_can_be_changed,
    no_shared_descriptor_can_be_made_blocking_by_other_ways,
    no_limit_of_a_neighbour_can_be_set,
    no_priority_can_be_set,
    no_scheduling_of_a_neighbour_can_be_set,
    no_signal_can_be_sent,
    no_neighbour_can_be_traced_or_looked_into,
    the_log_cannot_be_changed,
    the_log_can_only_be_written_to,
    no_descriptor_can_be_sent,
    no_file_can_be_opened_or_changed,
    no_new_descriptor_can_be_had,
    no_new_process_can_be_made,
    no_privilege_can_be_had,
    the_queue_cannot_be_opened_again,
];

/// Where Landlock is missing, a filter of each handler takes its place. It matters where all have one user.
mod without_landlock {
    fn run(attack: fn(&mut super::Attacker)) {
        let setup = super::Setup::new().with_user_of_its_own().map(super::Setup::without_landlock);
        super::run(setup, attack);
    }

    #[test]
    fn no_signal_can_be_sent() {
        run(super::no_signal_can_be_sent);
    }

    #[test]
    fn no_file_can_be_opened_or_changed() {
        run(super::no_file_can_be_opened_or_changed);
    }

    #[test]
    fn the_queue_cannot_be_opened_again() {
        run(super::the_queue_cannot_be_opened_again);
    }
}

/// Has the attacker try a call: `tries!(attacker.tries, SYS_fcntl, 2, F_SETFL, 0)`.
macro_rules! tries {
    ($attacker:ident.$tries:ident, $call:ident $(, $argument:expr)*) => {
        $attacker.$tries(
            concat!(stringify!($call) $(, " ", stringify!($argument))*),
            libc::$call,
            &[$(argument($argument)),*],
        )
    };
}

fn no_flag_of_a_shared_descriptor_can_be_changed(attacker: &mut Attacker) {
    let own = attacker.process.pid();
    for fd in descriptors(own).into_keys() {
        for flags in [0, libc::O_NONBLOCK, libc::O_APPEND | libc::O_NONBLOCK] {
            tries!(attacker.tries, SYS_fcntl, fd, libc::F_SETFL, flags);
        }
        tries!(attacker.tries, SYS_fcntl, fd, libc::F_SETOWN, own);
        tries!(attacker.tries, SYS_fcntl, fd, F_SETSIG, libc::SIGTERM);
    }
}

/// Not in the crate libc.
const F_SETSIG: i32 = 10;

fn no_shared_descriptor_can_be_made_blocking_by_other_ways(attacker: &mut Attacker) {
    let [no, yes] = [0_i32, 1].map(|number| attacker.process.put(&number.to_le_bytes()));
    let attributes = attacker.process.put(&[0; 64]);
    for fd in descriptors(attacker.process.pid()).into_keys() {
        for value in [yes, no] {
            tries!(attacker.tries, SYS_ioctl, fd, libc::FIONBIO, value);
        }
        // A stand-in has no queue.
        tries!(attacker.tries_privileged, SYS_mq_getsetattr, fd, attributes, 0);
        tries!(attacker.tries_privileged, SYS_mq_notify, fd, 0);
        // Its requests would overtake those of others.
        tries!(attacker.tries_privileged, SYS_mq_timedsend, fd, attributes, 1, 1, 0);
    }
}

fn no_limit_of_a_neighbour_can_be_set(attacker: &mut Attacker) {
    let nothing = attacker.process.put(&[0; 16]);
    for victim in attacker.victims.clone() {
        for limit in [libc::RLIMIT_FSIZE, libc::RLIMIT_NOFILE, libc::RLIMIT_AS, libc::RLIMIT_CPU] {
            tries!(attacker.tries, SYS_prlimit64, victim, limit, nothing, 0);
        }
    }
}

fn no_priority_can_be_set(attacker: &mut Attacker) {
    let own = attacker.process.pid();
    let parameters = attacker.process.put(&[0; 4]);
    tries!(attacker.tries, SYS_sched_setscheduler, 0, libc::SCHED_IDLE, parameters);
    for victim in attacker.victims.clone().into_iter().chain([0, own]) {
        tries!(attacker.tries, SYS_setpriority, libc::PRIO_PROCESS, victim, 19);
        tries!(attacker.tries, SYS_ioprio_set, IOPRIO_WHO_PROCESS, victim, IDLE);
    }
    tries!(attacker.tries, SYS_setpriority, libc::PRIO_PGRP, 0, 19);
    tries!(attacker.tries, SYS_ioprio_set, IOPRIO_WHO_PGRP, 0, IDLE);
}

/// See `ioprio_set(2)`: whom a priority is for, and the priority of the class that gets the disk when nobody else wants it.
const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_WHO_PGRP: i32 = 2;
const IDLE: i32 = 3 << 13;

fn no_scheduling_of_a_neighbour_can_be_set(attacker: &mut Attacker) {
    let parameters = attacker.process.put(&[0; 4]);
    let first_cpu = attacker.process.put(&1_u64.to_le_bytes());
    // size 48, policy SCHED_IDLE: see `sched_setattr(2)`.
    let attributes =
        attacker.process.put(&[[48, 0, 0, 0, 5, 0, 0, 0], [0; 8], [0; 8], [0; 8], [0; 8], [0; 8]].concat());
    for victim in attacker.victims.clone() {
        tries!(attacker.tries, SYS_sched_setscheduler, victim, libc::SCHED_IDLE, parameters);
        tries!(attacker.tries, SYS_sched_setparam, victim, parameters);
        tries!(attacker.tries, SYS_sched_setattr, victim, attributes, 0);
        tries!(attacker.tries, SYS_sched_setaffinity, victim, 8, first_cpu);
    }
}

fn no_signal_can_be_sent(attacker: &mut Attacker) {
    let own = attacker.process.pid();
    // Of a process that may be sent a signal: the signal, errno, and SI_QUEUE, which means that a process sent it.
    let info: Vec<u8> =
        [libc::SIGWINCH, 0, -1].into_iter().flat_map(i32::to_le_bytes).chain([0; 116]).collect();
    let info = attacker.process.put(&info);
    for victim in attacker.victims.clone() {
        tries!(attacker.tries, SYS_tgkill, victim, victim, libc::SIGWINCH);
        tries!(attacker.tries, SYS_tkill, victim, libc::SIGWINCH);
        tries!(attacker.tries, SYS_rt_sigqueueinfo, victim, libc::SIGWINCH, info);
        tries!(attacker.tries, SYS_rt_tgsigqueueinfo, victim, victim, libc::SIGWINCH, info);
        tries!(attacker.tries, SYS_kill, victim, libc::SIGWINCH);
        tries!(attacker.tries, SYS_kill, victim, libc::SIGKILL);
    }
    // Its group has the test's processes too, if it is a stand-in.
    tries!(attacker.tries_privileged, SYS_tgkill, own, own, libc::SIGWINCH);
}

fn no_neighbour_can_be_traced_or_looked_into(attacker: &mut Attacker) {
    let own = attacker.process.pid();
    for victim in attacker.victims.clone() {
        let local = attacker.process.put(&[0; 8]);
        let stack = stack_of(victim);
        let vector = |address: u64| [address.to_le_bytes(), 8_u64.to_le_bytes()].concat();
        let [local, remote] = [local, stack].map(|address| attacker.process.put(&vector(address)));
        tries!(attacker.tries, SYS_process_vm_readv, victim, local, 1, remote, 1, 0);
        tries!(attacker.tries, SYS_process_vm_writev, victim, local, 1, remote, 1, 0);
        tries!(attacker.tries, SYS_kcmp, own, victim, 0, 2, 2);
        tries!(attacker.tries, SYS_pidfd_open, victim, 0);
        tries!(attacker.tries, SYS_get_robust_list, victim, local, local + 8);
        tries!(attacker.tries, SYS_ptrace, libc::PTRACE_SEIZE, victim, 0, 0);
    }
}

/// An address in the stack of a process.
fn stack_of(pid: i32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
    let (_, end) = stack.split_once(' ').unwrap().0.split_once('-').unwrap();
    u64::from_str_radix(end, 16).unwrap() - 64
}

fn the_log_cannot_be_changed(attacker: &mut Attacker) {
    let log = fs::read_link(format!("/proc/{}/fd/2", attacker.process.pid())).unwrap();
    let before = fs::read(&log).unwrap();
    let rubbish = attacker.process.put(b"rubbish");
    let vector = [rubbish.to_le_bytes(), 7_u64.to_le_bytes()].concat();
    let vector = attacker.process.put(&vector);
    let (protection, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    tries!(attacker.tries, SYS_lseek, 2, 0, libc::SEEK_SET);
    tries!(attacker.tries, SYS_mmap, 0, 4096, protection, shared, 2, 0);
    tries!(attacker.tries, SYS_mmap, 0, 4096, protection, libc::MAP_SHARED_VALIDATE, 2, 0);
    tries!(attacker.tries, SYS_pwrite64, 2, rubbish, 7, 0);
    tries!(attacker.tries, SYS_pwritev, 2, vector, 1, 0, 0);
    tries!(attacker.tries, SYS_pwritev2, 2, vector, 1, 0, 0, 0);
    tries!(attacker.tries, SYS_fallocate, 2, 0, 0, 4096);
    tries!(attacker.tries, SYS_fallocate, 2, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4096);
    tries!(attacker.tries, SYS_ftruncate, 2, 0);
    tries!(attacker.tries, SYS_fchmod, 2, 0o600);
    tries!(attacker.tries, SYS_fchown, 2, -1, -1);
    tries!(attacker.tries, SYS_flock, 2, libc::LOCK_SH);
    let lock = attacker.process.put(&[0; 32]);
    tries!(attacker.tries, SYS_fcntl, 2, libc::F_SETLK, lock);
    // By the upper half of the argument, which the kernel ignores.
    tries!(attacker.tries, SYS_ftruncate, (1_u64 << 32) + 2, 0);
    assert!(fs::read(&log).unwrap().starts_with(&before), "the log was changed");
    // The journal's socket, a pipe, a terminal.
    tries!(attacker.tries_on_any_log, SYS_shutdown, 2, libc::SHUT_RDWR);
    tries!(attacker.tries_on_any_log, SYS_setsockopt, 2, libc::SOL_SOCKET, libc::SO_SNDTIMEO, rubbish, 16);
    tries!(attacker.tries_on_any_log, SYS_fcntl, 2, libc::F_SETPIPE_SZ, 4096);
    tries!(attacker.tries_on_any_log, SYS_ioctl, 2, libc::TIOCSTI, rubbish);
    tries!(attacker.tries_on_any_log, SYS_dup, 2);
}

/// If the log is a terminal, reading it takes what the operator types. In the background it stops the whole process group, the
/// acceptor too (SIGTTIN). A sync keeps the disk from storage.
fn the_log_can_only_be_written_to(attacker: &mut Attacker) {
    let bytes = attacker.process.put(&[0; 64]);
    let vector = attacker.process.put(&[bytes.to_le_bytes(), 8_u64.to_le_bytes()].concat());
    for log in [2, (1_u64 << 32) + 2] {
        tries!(attacker.tries, SYS_read, log, bytes, 8);
        tries!(attacker.tries, SYS_readv, log, vector, 1);
        tries!(attacker.tries, SYS_pread64, log, bytes, 8, 0);
        tries!(attacker.tries, SYS_preadv, log, vector, 1, 0, 0);
        tries!(attacker.tries, SYS_fsync, log);
        tries!(attacker.tries, SYS_fdatasync, log);
        tries!(attacker.tries_on_any_log, SYS_recvfrom, log, bytes, 8, 0, 0, 0);
        tries!(attacker.tries_on_any_log, SYS_recvmsg, log, bytes, 0);
        tries!(attacker.tries_on_any_log, SYS_sendto, log, bytes, 1, libc::MSG_OOB, 0, 0);
        tries!(attacker.tries_on_any_log, SYS_sendmsg, log, bytes, 0);
    }
}

/// A handler can close descriptors, and has places for a pair of sockets then. What it sent would count for the limit of its
/// user, and it could have the log at another number.
fn no_descriptor_can_be_sent(attacker: &mut Attacker) {
    for fd in [0, 1] {
        tries!(attacker.makes, SYS_close, fd);
    }
    let numbers = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
    let pair = attacker.process.put(&[0; 8]);
    let socketpair = [argument(libc::AF_UNIX), argument(libc::SOCK_DGRAM), 0, pair];
    // A session can make no sockets.
    if attacker.process.call(libc::SYS_socketpair, &socketpair).is_err() {
        return;
    }
    // The layouts of cmsghdr with a descriptor (level and type are two halves of a number), iovec, and msghdr.
    let rights = (argument(libc::SCM_RIGHTS) << 32) + argument(libc::SOL_SOCKET);
    let rights = attacker.process.put(&numbers(&[20, rights, 2]));
    let bytes = attacker.process.put(&numbers(&[pair, 1]));
    let message = attacker.process.put(&numbers(&[0, 0, bytes, 1, rights, 24, 0]));
    tries!(attacker.tries, SYS_sendmsg, 0, message, 0);
    // It lacks what it has closed.
    send(attacker.process.pid(), Signal::SIGKILL);
}

fn no_file_can_be_opened_or_changed(attacker: &mut Attacker) {
    let path = attacker.path();
    let other = attacker.put_path(&attacker.file.with_extension("other"));
    let here = libc::AT_FDCWD;
    let before = fs::read(&attacker.file).unwrap();
    tries!(attacker.tries, SYS_openat, here, path, libc::O_RDONLY, 0);
    tries!(attacker.tries, SYS_openat, here, path, libc::O_WRONLY | libc::O_APPEND, 0);
    tries!(attacker.tries, SYS_open, path, libc::O_RDWR, 0);
    tries!(attacker.tries, SYS_open, path, libc::O_PATH, 0);
    tries!(attacker.tries, SYS_openat, here, other, libc::O_CREAT | libc::O_WRONLY, 0o600);
    tries!(attacker.tries, SYS_unlink, other);
    tries!(attacker.tries, SYS_mkdir, other, 0o700);
    tries!(attacker.tries, SYS_rmdir, other);
    tries!(attacker.tries, SYS_chmod, path, 0o644);
    tries!(attacker.tries, SYS_truncate, path, before.len() as u64);
    tries!(attacker.tries, SYS_rename, path, other);
    tries!(attacker.tries, SYS_renameat2, here, other, here, path, 0);
    tries!(attacker.tries, SYS_symlink, path, other);
    tries!(attacker.tries, SYS_unlinkat, here, other, 0);
    tries!(attacker.tries, SYS_link, path, other);
    tries!(attacker.tries, SYS_unlink, path);
    if attacker.file.exists() {
        assert_eq!(fs::read(&attacker.file).unwrap(), before);
    }
}

fn no_new_descriptor_can_be_had(attacker: &mut Attacker) {
    let name = attacker.process.put(b"name\0");
    let pair = attacker.process.put(&[0; 16]);
    for family in [libc::AF_INET, libc::AF_UNIX, libc::AF_NETLINK] {
        tries!(attacker.tries, SYS_socket, family, libc::SOCK_DGRAM, 0);
    }
    tries!(attacker.tries, SYS_socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, pair);
    tries!(attacker.tries, SYS_pipe2, pair, 0);
    tries!(attacker.tries, SYS_dup, 2);
    tries!(attacker.tries, SYS_dup2, 2, 0);
    tries!(attacker.tries, SYS_dup3, 2, 1, 0);
    tries!(attacker.tries, SYS_fcntl, 2, libc::F_DUPFD_CLOEXEC, 0);
    tries!(attacker.tries, SYS_memfd_create, name, 0);
    tries!(attacker.tries, SYS_epoll_create1, 0);
    tries!(attacker.tries, SYS_eventfd2, 0, 0);
    tries!(attacker.tries, SYS_inotify_init1, 0);
    tries!(attacker.tries, SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0);
    tries!(attacker.tries, SYS_mq_open, name, libc::O_CREAT | libc::O_RDWR, 0o600, 0);
    tries!(attacker.tries, SYS_mq_unlink, name);
    tries!(attacker.tries_privileged, SYS_io_uring_setup, 8, pair);
    tries!(attacker.tries_privileged, SYS_bpf, 0, pair, 16);
    tries!(attacker.tries_privileged, SYS_perf_event_open, pair, 0, -1, -1, 0);
    tries!(attacker.tries_privileged, SYS_userfaultfd, 0);
}

/// Whoever could read the queue would get the tokens of other clients. It has no path any more but that of the descriptor.
fn the_queue_cannot_be_opened_again(attacker: &mut Attacker) {
    // That makes room for another one.
    tries!(attacker.makes, SYS_close, 0);
    let open = descriptors(attacker.process.pid()).into_iter();
    // A stand-in has no queue, and tries its log.
    for (fd, _) in open.filter(|(fd, target)| *fd == 2 || target.starts_with("/loteria-")) {
        let path = attacker.put_path(Path::new(&format!("/proc/self/fd/{fd}")));
        for mode in [libc::O_RDONLY, libc::O_RDWR] {
            tries!(attacker.tries, SYS_openat, libc::AT_FDCWD, path, mode, 0);
        }
    }
}

fn no_new_process_can_be_made(attacker: &mut Attacker) {
    let program = attacker.process.put(b"/bin/true\0");
    let arguments = attacker.process.put(&[program.to_le_bytes(), [0; 8]].concat());
    tries!(attacker.tries, SYS_fork);
    tries!(attacker.tries, SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
    tries!(
        attacker.tries_privileged,
        SYS_clone,
        libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND,
        0,
        0,
        0,
        0
    );
    tries!(attacker.tries_privileged, SYS_vfork);
    tries!(attacker.tries_privileged, SYS_unshare, libc::CLONE_NEWUSER);
    tries!(attacker.tries_privileged, SYS_execve, program, arguments, arguments + 8);
    tries!(attacker.tries_privileged, SYS_execveat, libc::AT_FDCWD, program, arguments, arguments + 8, 0);
}

fn no_privilege_can_be_had(attacker: &mut Attacker) {
    let path = attacker.put_path(Path::new("/"));
    let executable = libc::PROT_READ | libc::PROT_EXEC;
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    tries!(attacker.tries, SYS_mmap, 0, 4096, executable, anonymous, -1, 0);
    tries!(attacker.tries, SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    // The kernel would kill others for lack of memory.
    tries!(attacker.tries, SYS_mmap, 0, 256 << 20, libc::PROT_READ | libc::PROT_WRITE, anonymous, -1, 0);
    // It would outlive the acceptor.
    tries!(attacker.tries, SYS_prctl, libc::PR_SET_PDEATHSIG, 0, 0, 0, 0);
    tries!(attacker.tries_privileged, SYS_setuid, 0);
    tries!(attacker.tries_privileged, SYS_setresuid, 0, 0, 0);
    tries!(attacker.tries_privileged, SYS_setgid, 0);
    tries!(attacker.tries_privileged, SYS_chroot, path);
    tries!(attacker.tries_privileged, SYS_mount, 0, path, 0, libc::MS_REMOUNT, 0);
    tries!(attacker.tries_privileged, SYS_keyctl, 0, 0, 0, 0, 0);
    tries!(attacker.tries_privileged, SYS_init_module, 0, 0, 0);
}

#[test]
fn a_handler_that_kills_itself_by_a_real_time_signal_harms_nobody() {
    for setup in [Some(Setup::new()), Setup::new().with_user_of_its_own()].into_iter().flatten() {
        let server = setup.start();
        let _client = server.connect();
        server.wait_for_handlers(1);
        let Some(mut handler) = Hijacked::attach(server.handlers()[0]) else { return };
        let own = handler.pid();
        handler.call(libc::SYS_kill, &[argument(own), argument(libc::SIGRTMIN())]).unwrap();
        drop(handler);
        until("it is reaped", || server.log().0.contains("killed by signal 34"));
        server.connect().classic(kind::BET, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
        assert_unharmed(server, &bets(1, 0..2));
    }
}

#[test]
fn storage_keeps_only_what_it_needs_for_its_files() {
    let server = Setup::new().start();
    let Some(mut storage) = Hijacked::attach(server.storage()) else { return };
    let pair = storage.put(&[0; 16]);
    let acceptor = server.pid();
    let mut refused = |call, arguments: &[u64]| assert_eq!(storage.call(call, arguments), Err(Errno::EPERM));
    refused(libc::SYS_kill, &[argument(acceptor), 0]);
    refused(libc::SYS_clone, &[argument(libc::SIGCHLD), 0, 0, 0, 0]);
    refused(libc::SYS_socket, &[argument(libc::AF_INET), argument(libc::SOCK_STREAM), 0]);
    refused(libc::SYS_socketpair, &[argument(libc::AF_UNIX), argument(libc::SOCK_STREAM), 0, pair]);
    refused(libc::SYS_execve, &[pair, 0, 0]);
    refused(libc::SYS_setresuid, &[1, 1, 1]);
    if server.log().value("confinement", "landlock").as_deref() == Some("full") {
        let (folder, outside) = (server.setup().path("new"), std::env::temp_dir().join("loteria-new"));
        let mut creates = |path: &Path| {
            let path = storage.put(format!("{}\0", path.display()).as_bytes());
            let flags = argument(libc::O_CREAT | libc::O_WRONLY);
            storage.call(libc::SYS_openat, &[argument(libc::AT_FDCWD), path, flags, 0o600])
        };
        assert_eq!(creates(&outside), Err(Errno::EACCES));
        creates(&folder).unwrap();
    }
    drop(storage);
    let status = fs::read_to_string(format!("/proc/{}/status", server.storage())).unwrap();
    let capabilities = status.lines().filter(|line| line.starts_with("CapEff") || line.starts_with("CapPrm"));
    for line in capabilities {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER: files may be of any user.
        assert_eq!(set & !0b1110, 0, "{line}");
    }
    server.connect().classic(kind::BET, &bets(1, 0..1)[0].record(), kind::BET_ACK, b"OK");
    assert_unharmed(server, &bets(1, 0..2));
}

#[test]
fn without_seccomp_the_server_works_and_says_so() {
    let Some(setup) = Setup::new().with_fault("seccomp:error=EINVAL") else { return };
    let server = setup.start();
    assert_eq!(server.log().value("confinement", "seccomp").as_deref(), Some("none"));
    server.session(1).0.store(0, &bets(1, 0..1));
    assert_unharmed(server, &bets(1, 0..2));
}
