//! The memory that handlers share with other processes: what they can write there, and that nothing depends on it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::Instant;

use common::hijack::{Hijacked, argument};
use common::{PATIENCE, Running, RunningServer, Setup, bets, kind, rows, status, winner};
use nix::errno::Errno;
use nix::libc;

/// A mapping that is shared with other processes.
#[derive(Debug)]
struct Shared {
    /// As in the name of its file in `map_files`.
    range: String,
    start: u64,
    length: usize,
    is_writable: bool,
}

fn shared_mappings(pid: i32) -> Vec<Shared> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let shared = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let length = usize::try_from(end - start).unwrap();
        let mapping = Shared { range: range.to_owned(), start, length, is_writable: rest.starts_with("rw") };
        rest.split(' ').next().unwrap().ends_with('s').then_some(mapping)
    });
    shared.collect()
}

/// The mapping that a handler can read and other processes write.
#[track_caller]
fn protected(pid: i32) -> Shared {
    let shared = shared_mappings(pid);
    shared.into_iter().find(|mapping| !mapping.is_writable).expect("a protected mapping")
}

/// A handler that was taken over before and one that was taken over in a session.
fn handlers(server: &RunningServer) -> [i32; 2] {
    server.wait_for_handlers(2);
    server.handlers()[..].try_into().unwrap()
}

#[test]
fn the_counters_are_the_only_shared_memory_that_a_handler_can_write() {
    let server = Setup::new().start();
    let _clients = (server.connect(), server.session(1));
    for pid in handlers(&server) {
        let writable: Vec<Shared> =
            shared_mappings(pid).into_iter().filter(|mapping| mapping.is_writable).collect();
        let [counters] = &writable[..] else { panic!("{writable:?}") };
        assert_eq!(counters.length, 4096);
        // Storage has the protected memory, which it writes, and the counters, which it does not use.
        let of_storage = shared_mappings(server.storage());
        assert_eq!(of_storage.iter().filter(|mapping| mapping.is_writable).count(), 2, "{of_storage:?}");
    }
}

#[test]
fn a_handler_cannot_make_the_protected_memory_writable() {
    let server = Setup::new().start();
    let _clients = (server.connect(), server.session(1));
    for pid in handlers(&server) {
        let Shared { start, length, .. } = protected(pid);
        let length = length as u64;
        let Some(mut handler) = Hijacked::attach(pid) else { return };
        // No store of the handler gets there, nor one of its tracer.
        assert!(handler.write(start, &[0xff; 64]).is_err());
        let writable = argument(libc::PROT_READ | libc::PROT_WRITE);
        assert_eq!(handler.call(libc::SYS_mprotect, &[start, length, writable]), Err(Errno::EACCES));
        // The mapping itself may be doubled: the copy is like it.
        let copy = handler.call(libc::SYS_mremap, &[start, 0, length, argument(libc::MREMAP_MAYMOVE), 0]);
        let copy = copy.expect("a copy");
        assert_eq!(handler.call(libc::SYS_mprotect, &[copy, length, writable]), Err(Errno::EACCES));
        assert!(handler.write(copy, &[0xff; 64]).is_err());
        assert!(handler.call(libc::SYS_madvise, &[copy, length, argument(libc::MADV_REMOVE)]).is_err());
        // Forgotten pages are read again from the shared memory.
        handler.call(libc::SYS_madvise, &[start, length, argument(libc::MADV_DONTNEED)]).unwrap();
        // A kernel that clears a futex of a dead thread must not write there either.
        let head = handler.put(&[start.to_le_bytes(), [0; 8], start.to_le_bytes()].concat());
        handler.call(libc::SYS_set_robust_list, &[head, 24]).unwrap_or_default();
    }
    server.session(2).0.store(0, &bets(2, 0..3));
}

/// The seals do not depend on a handler's confinement: they hold against an ordinary process of root.
#[test]
fn nobody_can_open_the_protected_memory_to_change_it() {
    let server = Setup::new().start();
    let _client = server.connect();
    server.wait_for_handlers(1);
    let pid = server.handlers()[0];
    let Shared { range, length, .. } = protected(pid);
    let sleep = Running::start(Command::new("sleep").arg("60"));
    let Some(mut root) = Hijacked::attach(sleep.pid()) else { return };
    let path = root.put(format!("/proc/{pid}/map_files/{range}\0").as_bytes());
    let current = argument(libc::AT_FDCWD);
    let file = root.call(libc::SYS_openat, &[current, path, argument(libc::O_RDWR), 0]).expect("opened");
    let both = argument(libc::PROT_READ | libc::PROT_WRITE);
    let hole = argument(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
    let shared = argument(libc::MAP_SHARED);
    for (call, arguments) in [
        (libc::SYS_mmap, &[0, length as u64, both, shared, file, 0][..]),
        (libc::SYS_pwrite64, &[file, path, 8, 0]),
        (libc::SYS_ftruncate, &[file, 0]),
        (libc::SYS_fallocate, &[file, hole, 0, 4096]),
        (libc::SYS_fcntl, &[file, argument(libc::F_ADD_SEALS), 0]),
    ] {
        assert_eq!(root.call(call, arguments), Err(Errno::EPERM), "call {call}");
    }
}

#[test]
fn rubbish_in_all_that_a_handler_can_write_harms_nobody() {
    const AGENCIES: u8 = 150;
    let server = Setup::of(AGENCIES.into()).start();
    let _attacker = server.session(1);
    let pid = server.handlers()[0];
    // Only root can write another process's memory.
    let Ok(memory) = File::options().write(true).open(format!("/proc/{pid}/mem")) else { return };
    let shared = shared_mappings(pid);
    let mut writable = shared.iter().filter(|mapping| mapping.is_writable).peekable();
    assert!(writable.peek().is_some());
    let (begun, is_over) = (Instant::now(), AtomicBool::new(false));
    scope(|scope| {
        let (server, memory, is_over) = (&server, &memory, &is_over);
        for (number, mapping) in writable.enumerate() {
            scope.spawn(move || {
                let mut state = number as u64 + 1;
                let mut rubbish = vec![0; mapping.length];
                while !is_over.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
                    for byte in &mut rubbish {
                        // A generator of Lehmer: `std` has no random numbers.
                        state = state * 48_271 % 0x7fff_ffff;
                        *byte = state.to_le_bytes()[1];
                    }
                    memory.write_all_at(&rubbish, mapping.start).unwrap();
                }
            });
        }
        for agency in 1..=AGENCIES {
            let (mut session, _) = server.session(agency.into());
            let document = agency.to_string();
            session.store(0, &[winner(agency.into(), &document)]);
            server.connect().classic(kind::RESULT_REQUEST, &[agency], kind::IN_PROGRESS, b"");
            session.end_agency();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    for agency in 1..=AGENCIES {
        let document = agency.to_string();
        server.connect().classic(kind::RESULT_REQUEST, &[agency], kind::RESULT, document.as_bytes());
    }
    let expected: Vec<_> = (1..=AGENCIES).map(|agency| winner(agency.into(), &agency.to_string())).collect();
    assert_eq!(server.bets_file(), rows(&expected));
    server.wait_for_handlers(1);
    let told = status(server.port());
    assert_eq!((&told["bets"], &told["storage_restarts"]), (&AGENCIES.into(), &0.into()));
    assert_eq!((&told["max_clients"], &told["handlers"]), (&1024.into(), &2.into()));
    assert!(server.log().lines_with("action: handler | result: fail").is_empty(), "{}", server.log().0);
}

#[test]
fn where_memory_cannot_be_sealed_handlers_ask_storage() {
    let Some(setup) = Setup::of(2).with_fault("memfd_create:error=ENOSYS") else { return };
    let server = setup.start();
    let (mut session, _) = server.session(1);
    assert!(shared_mappings(server.handlers()[0]).iter().all(|mapping| mapping.is_writable));
    session.store(0, &[winner(1, "11")]);
    session.end_agency();
    session.send_frame(kind::AWAIT_RESULT, b"");
    server.connect().classic(kind::RESULT_REQUEST, &[2], kind::IN_PROGRESS, b"");
    server.connect().classic_end(2);
    session.expect(kind::RESULT, b"11");
    server.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"");
}
