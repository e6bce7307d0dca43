//! What the server's processes are, and what each of them holds: its duties are its alone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod common;

use std::fs;

use common::{RunningServer, Setup, bets, kind, processes, status};
use nix::fcntl::OFlag;

/// A server with a process of each kind: acceptor, storage and a handler.
fn server() -> (RunningServer, common::Client) {
    let server = Setup::new().start();
    let (client, _) = server.session(1);
    server.wait_for_handlers(1);
    (server, client)
}

/// What the descriptors of a process stand for, and the numbers of them.
fn descriptors(pid: i32) -> Vec<(String, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let link = |entry: &fs::DirEntry| fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
    entries.map(|entry| (link(&entry), entry.file_name().into_string().unwrap())).collect()
}

#[test]
fn every_process_has_one_thread() {
    let (server, _client) = server();
    let all = server.processes();
    assert_eq!(all.len(), 3);
    for pid in all {
        assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
    }
}

#[test]
fn storage_alone_has_the_bets_and_the_acceptor_alone_listens() {
    let (server, _client) = server();
    let bets = server.setup().bets_path();
    let holders: Vec<i32> =
        server.processes().into_iter().filter(|pid| processes::has_open(*pid, &bets)).collect();
    assert_eq!(holders, [server.storage()]);
    // State 0A is that of a socket that listens; the tenth field is the socket's number: see proc_net_tcp(5).
    let local = format!(":{:04X}", server.port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listener = fields.rfind(|fields| fields[1].ends_with(&local) && fields[3] == "0A").unwrap();
    let link = format!("socket:[{}]", listener[9]);
    let holds = |pid: &i32| descriptors(*pid).iter().any(|(what, _)| *what == link);
    let holders: Vec<i32> = server.processes().into_iter().filter(holds).collect();
    assert_eq!(holders, [server.pid()]);
}

#[test]
fn storage_only_reads_the_request_queue_and_handlers_only_write_to_it() {
    let (server, _client) = server();
    let modes = |pid: i32| -> Vec<i32> {
        let queues = descriptors(pid).into_iter().filter(|(what, _)| what.starts_with("/loteria-"));
        let flags = queues.map(|(_, number)| {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            i32::from_str_radix(flags.trim(), 8).unwrap() & OFlag::O_ACCMODE.bits()
        });
        flags.collect()
    };
    assert_eq!(modes(server.storage()), [OFlag::O_RDONLY.bits()]);
    for handler in server.handlers() {
        assert_eq!(modes(handler), [OFlag::O_WRONLY.bits()]);
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_handler_that_panics_ends_there_and_harms_nobody_else() {
    let server = Setup::of(2).with("FAILPOINTS", "handler_has_mutex=panic(on purpose)").start();
    let (mut victim, _) = server.session(1);
    let (mut other, _) = server.session(2);
    victim.send_frame(kind::RESULT_REQUEST, b"");
    victim.expect_closed();
    server.wait_for_handlers(1);
    other.store(0, &bets(2, 0..3));
    let log = server.log();
    assert_eq!(log.lines_with("action: panic | result: fail").len(), 1, "{}", log.0);
    // It ended by itself, and not in the acceptor's code by a system call that it may not make.
    let [end] = log.lines_with("action: handler | result: fail")[..] else { panic!("one end: {}", log.0) };
    assert!(end.ends_with(" | error: exit status 101"), "{end}");
    assert_eq!(status(server.port())["storage_restarts"], 0);
}
