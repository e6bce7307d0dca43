//! The server's processes: how they start and what each of them has open.
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::processes::descriptors;
use common::{
    Running, RunningServer, Setup, bets, free_port, kind, output, processes, program, status, text, until,
};
use nix::fcntl::OFlag;

/// A server with one handler, and the client of that handler.
fn server() -> (RunningServer, common::Client) {
    let server = Setup::new().start();
    let (client, _) = server.session(1);
    server.wait_for_handlers(1);
    (server, client)
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
    // State 0A is a listening socket. The tenth field is the socket's inode.
    let local = format!(":{:04X}", server.port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listener = fields.rfind(|fields| fields[1].ends_with(&local) && fields[3] == "0A").unwrap();
    let link = format!("socket:[{}]", listener[9]);
    let holds = |pid: &i32| descriptors(*pid).values().any(|what| *what == link);
    let holders: Vec<i32> = server.processes().into_iter().filter(holds).collect();
    assert_eq!(holders, [server.pid()]);
}

#[test]
fn storage_only_reads_the_request_queue_and_handlers_only_write_to_it() {
    let (server, _client) = server();
    let modes = |pid: i32| -> Vec<i32> {
        let queues = descriptors(pid).into_iter().filter(|(_, what)| what.starts_with("/loteria-"));
        let flags = queues.map(|(number, _)| {
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
fn a_panic_ends_only_its_handler() {
    let server = Setup::of(2).with("FAILPOINTS", "request_part_sent=panic(on purpose)").start();
    let (mut victim, _) = server.session(1);
    let (mut other, _) = server.session(2);
    // More than one message of the queue holds.
    victim.send_bets(0, &bets(1, 0..400));
    victim.expect_closed();
    server.wait_for_handlers(1);
    other.store(0, &bets(2, 0..3));
    let log = server.log();
    assert_eq!(log.lines_with("action: panic | result: fail").len(), 1, "{}", log.0);
    // It exits at once: it must not unwind into the acceptor's code, where seccomp would kill it.
    let [end] = log.lines_with("action: handler | result: fail")[..] else { panic!("one end: {}", log.0) };
    assert!(end.ends_with(" | error: exit status 101"), "{end}");
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

/// Runs a whole contest on a server with this setup.
#[track_caller]
fn works(setup: &Setup) {
    let mut server = setup.clone().with("CLIENTS_AMOUNT", 1).start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    client.end_agency();
    client.send_frame(kind::AWAIT_RESULT, b"");
    client.expect(kind::RESULT, b"");
    drop(client);
    server.terminate();
    assert_eq!(server.bets_file(), common::rows(&bets(1, 0..3)));
    assert!(server.log().lines_of("ERROR").is_empty(), "{}", server.log().0);
}

#[test]
fn a_server_and_a_demo_run_with_sigchld_ignored() {
    let ignoring = ["env", "--ignore-signal=CHLD"];
    let setup = Setup::new().started_by(&ignoring);
    works(&setup);
    let mut demo = Command::new("env");
    demo.args([ignoring[1], &program::PROGRAM, "demo", "--agencies", "1", "--bets", "5", "--dir"]);
    let ended = output(demo.arg(setup.path("demo")));
    assert!(ended.status.success(), "{}", text(&ended.stderr));
}

#[test]
fn without_close_range_children_still_have_only_their_own_descriptors() {
    for errno in ["ENOSYS", "EPERM"] {
        let Some(setup) = Setup::new().with_fault(&format!("close_range:error={errno}")) else { return };
        works(&setup);
        let server = setup.start();
        let (_client, _) = server.session(1);
        // See `confinement::a_handler_has_only_the_descriptors_that_it_needs`.
        assert_eq!(descriptors(server.handlers()[0]).len(), 6);
    }
}

#[test]
fn without_close_range_and_proc_children_still_have_only_their_own_descriptors() {
    let setup = Setup::new().in_empty_root();
    let Some(setup) = setup.and_then(|setup| setup.with_fault("close_range:error=ENOSYS")) else { return };
    works(&setup);
    let server = setup.start();
    let (_client, _) = server.session(1);
    assert_eq!(descriptors(server.handlers()[0]).len(), 6);
}

#[test]
fn a_failure_in_a_new_child_is_named_in_the_log() {
    let Some(setup) = Setup::new().with_fault("prctl:error=EPERM") else { return };
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    let named = ended.log.lines_with("action: fork | result: fail");
    // One line for the probe, six for storage.
    assert_eq!(named.len(), 7, "{}", ended.log.0);
    for line in named {
        assert!(line.contains("PR_SET_PDEATHSIG") && line.contains("Operation not permitted"), "{line}");
    }
    let value = |layer| ended.log.value("confinement", layer);
    assert_eq!(
        ["identity", "limits", "landlock", "seccomp"].map(value),
        [(); 4].map(|()| Some("none".into()))
    );
}

#[test]
fn a_server_starts_in_an_empty_root() {
    let Some(setup) = Setup::new().in_empty_root() else { return };
    works(&setup);
}

#[test]
fn an_agency_waits_for_its_server_in_an_empty_root() {
    let Some(root) = Setup::new().in_empty_root() else { return };
    let root = root.write("agency-1.csv", "Ana,Paz,1,2000-01-01,7\n");
    let port = free_port();
    let log = root.path("agency.log");
    let mut agency = Command::new("chroot");
    agency.arg(root.path("")).args(["/loteria", "agency"]).stderr(fs::File::create(&log).unwrap());
    agency.envs([("CLI_ID", "1"), ("CLI_SERVER_ADDRESS", &*format!("127.0.0.1:{port}"))]);
    // A second failure for the same reason is logged at DEBUG.
    agency.env("CLI_LOG_LEVEL", "DEBUG");
    let mut agency = Running::start(&mut agency);
    until("it has tried twice", || fs::read_to_string(&log).unwrap().matches("retry_in_ms").count() > 1);
    let _server = Setup::of(1).with("SERVER_PORT", port).start();
    assert!(agency.end().success(), "{}", fs::read_to_string(&log).unwrap());
}

#[test]
fn storage_repeats_its_ready_message_if_the_socket_has_no_room() {
    for errno in ["EAGAIN", "ENOBUFS", "ENOMEM"] {
        let fault = format!("sendmsg:error={errno}:when=1..3");
        let Some(setup) = Setup::new().with_fault(&fault) else { return };
        works(&setup);
    }
}

#[test]
fn whatever_the_umask_only_the_user_of_the_server_can_write_to_its_files() {
    for (umask, mode) in [("0", 0o644), ("002", 0o644), ("077", 0o600), ("777", 0o600)] {
        let Some(setup) = Setup::new().with_user_of_its_own() else { return };
        let user = setup.user().unwrap();
        let become_user = format!("setpriv --reuid {user} --regid {user} --clear-groups");
        let script = format!("umask {umask} && exec {become_user} \"$@\"");
        let server = setup.started_by(&["sh", "-c", &script, "sh"]).start();
        let (mut client, _) = server.session(1);
        client.store(0, &bets(1, 0..1));
        client.end_agency();
        for file in ["bets.csv", "bets.csv.state"] {
            let permissions = fs::metadata(server.setup().path(file)).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{file} with umask {umask}");
        }
    }
}
