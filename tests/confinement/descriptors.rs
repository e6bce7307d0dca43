//! What a handler has open, and what it may do with each.

use common::hijack::{Hijacked, argument};
use common::processes::descriptors;
use common::tls::with_tls;
use common::{RunningServer, Setup};
use nix::libc::{self, c_long};

/// The kinds of a handler's descriptors, and which of [`CALLS`] each allows.
const TABLE: [(&str, &[&str]); 6] = [
    // The request queue, to write to. It has no length that a change of its length would change.
    ("/loteria", &["ftruncate"]),
    ("anon_inode:[signalfd]", &[]),
    // The log.
    ("file", &[]),
    // Its replies, to read, twice: see `HANDLER_DESCRIPTORS`.
    ("pipe", &[]),
    ("pipe", &[]),
    // Its client. With TLS another one, to the keeper.
    ("socket", &["shutdown"]),
];

/// Calls that change something for all who have the descriptor, or for what is behind it: the second argument and the third.
const CALLS: [(&str, c_long, i64, i64); 26] = [
    ("F_SETFL", libc::SYS_fcntl, 4, 0),
    ("F_SETOWN", libc::SYS_fcntl, 8, 0),
    ("F_SETSIG", libc::SYS_fcntl, 10, 9),
    ("F_SETLEASE", libc::SYS_fcntl, 1024, 1),
    ("F_SETPIPE_SZ", libc::SYS_fcntl, 1031, 4096),
    ("F_ADD_SEALS", libc::SYS_fcntl, 1033, 1),
    ("F_SET_RW_HINT", libc::SYS_fcntl, 1036, SCRATCH),
    ("FIONBIO", libc::SYS_ioctl, 0x5421, SCRATCH),
    ("FIOASYNC", libc::SYS_ioctl, 0x5452, SCRATCH),
    ("TIOCSTI", libc::SYS_ioctl, 0x5412, SCRATCH),
    ("ftruncate", libc::SYS_ftruncate, 0, 0),
    ("fallocate", libc::SYS_fallocate, 0, 0),
    ("pwrite", libc::SYS_pwrite64, SCRATCH, 1),
    ("pwritev", libc::SYS_pwritev, SCRATCH, 0),
    ("fchmod", libc::SYS_fchmod, 0o777, 0),
    ("fchown", libc::SYS_fchown, -1, -1),
    ("utimensat", libc::SYS_utimensat, 0, 0),
    ("fsetxattr", libc::SYS_fsetxattr, SCRATCH, SCRATCH),
    ("flock", libc::SYS_flock, 1, 0),
    ("bind", libc::SYS_bind, SCRATCH, 16),
    ("connect", libc::SYS_connect, SCRATCH, 16),
    ("listen", libc::SYS_listen, 1, 0),
    ("setsockopt", libc::SYS_setsockopt, 1, 7),
    ("mq_getsetattr", libc::SYS_mq_getsetattr, SCRATCH, 0),
    ("mq_timedreceive", libc::SYS_mq_timedreceive, SCRATCH, 8192),
    ("shutdown", libc::SYS_shutdown, 2, 0),
];
/// Stands for the address of zeros.
const SCRATCH: i64 = i64::MIN;

fn kind(target: &str) -> &str {
    match target.split_once(':') {
        Some(("anon_inode", _)) => target,
        Some((kind, _)) => kind,
        None if target.starts_with("/loteria-") => "/loteria",
        None => "file",
    }
}

#[test]
fn a_handler_has_only_the_descriptors_that_it_needs_and_can_change_none() {
    assert_can_change_none(&Setup::new().start(), &[]);
    let server = with_tls(Setup::new(), 1).with("PLAIN_AGENCIES", "all").start();
    assert_can_change_none(&server, &["socket"]);
}

/// Tries each call with each descriptor, by a handler in a session and by one whose client has sent nothing. They have `more`
/// descriptors than without TLS.
#[track_caller]
fn assert_can_change_none(server: &RunningServer, more: &[&str]) {
    let session = server.session(1);
    let first = server.handlers()[0];
    let classic = server.connect();
    server.wait_for_handlers(2);
    let second = server.handlers().into_iter().find(|pid| *pid != first).unwrap();
    for pid in [first, second] {
        let Some(mut handler) = Hijacked::attach(pid) else { return };
        let zeros = handler.put(&[0; 8192]);
        let descriptors = descriptors(pid);
        let mut kinds: Vec<&str> = descriptors.values().map(|target| kind(target)).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [&TABLE.map(|(kind, _)| kind), more].concat());
        for (fd, target) in &descriptors {
            let tried = CALLS.iter().filter(|(_, call, second, third)| {
                let address = |number| if number == SCRATCH { zeros } else { argument(number) };
                handler.call(*call, &[argument(*fd), address(*second), address(*third)]).is_ok()
            });
            let mut possible = tried.map(|(name, ..)| *name);
            let (_, allowed) = TABLE.into_iter().find(|(known, _)| *known == kind(target)).unwrap();
            assert_eq!(possible.find(|name| !allowed.contains(name)), None, "{target}");
        }
    }
    drop((session, classic));
}
