//! What a handler that was taken over tries against its neighbours, as root's and as an ordinary user's. In the second case
//! all processes of the server have one user, as in a container.

use std::fs;

use common::hijack::{Hijacked, argument};
use common::{Setup, bets, kind, until};
use nix::libc;

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

attacks![no_neighbour_can_be_traced_or_looked_into, no_new_descriptor_can_be_had,];

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
