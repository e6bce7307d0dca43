//! A process of the server is killed. Acknowledged bets stay stored, and the other processes go on or are replaced.
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::client::bets_frame;
use common::{
    Bet, Running, RunningServer, Setup, bets, kind, output, processes, rows, server_of, status, until, winner,
};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

#[test]
fn a_killed_server_restarts_with_all_bets_and_ends() {
    let mut server = server_of(3);
    server.session(1).0.store(0, &[winner(1, "1"), Bet::made_up(1, 1), winner(1, "3")]);
    server.session(2).0.store(0, &bets(2, 0..4));
    server.connect().classic_end(2);
    server.kill9();
    let file = server.bets_file();
    // At once and on the same port.
    let mut again = server.setup().with("SERVER_PORT", server.port()).start();
    assert_eq!(again.bets_file(), file);
    assert_eq!((again.session(1).1.stored, again.session(1).1.state), (3, 0));
    assert_eq!((again.session(2).1.stored, again.session(2).1.state), (4, 1));
    again.connect().refused(kind::BET, &Bet::made_up(2, 9).record());
    again.connect().classic_end(1);
    again.connect().classic_end(3);
    assert_eq!(again.log().draws(), 1);
    again.kill9();
    let last = server.setup().start();
    last.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"1\x1e3");
    last.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"");
    assert_eq!(last.session(3).1.state, 2);
}

#[test]
fn a_server_starts_at_once_after_its_predecessor_was_killed() {
    let mut server = server_of(2);
    for stored in 0..3 {
        server.session(1).0.store(stored, &[Bet::made_up(1, u32::try_from(stored).unwrap())]);
        // The killed server's storage service may hold the lock for a moment.
        server.signal(Signal::SIGKILL);
        server.wait();
        let again = server.setup().start();
        server = again;
    }
    assert_eq!(server.bets_file(), rows(&bets(1, 0..3)));
}

#[test]
fn a_server_waits_for_a_port_that_is_free_soon() {
    // A new handler of a killed server may hold the port for a moment.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new().with("SERVER_PORT", held.local_addr().unwrap().port());
    let server = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        setup.start()
    });
    server.session(1);
}

/// Kills the storage service and waits for the next one.
fn kill_storage(server: &RunningServer) {
    let storage = server.storage();
    processes::send(storage, Signal::SIGKILL);
    until("a new storage service lives", || {
        !server.processes().contains(&storage) && server.storage() != storage
    });
}

#[test]
fn ends_and_counts_survive_the_storage_service() {
    let server = server_of(2);
    server.session(1).0.store(0, &[winner(1, "1"), winner(1, "2")]);
    server.connect().classic_end(1);
    kill_storage(&server);
    let (mut client, opened) = server.session(1);
    assert_eq!((opened.stored, opened.state), (2, 1));
    client.send_bets(2, &bets(1, 2..3));
    client.expect_error();
    server.connect().classic_end(2);
    kill_storage(&server);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"1\x1e2");
    assert_eq!(server.log().lines_with("action: sorteo | result: success").len(), 1);
}

#[test]
fn a_client_with_a_request_in_hand_is_closed_without_a_reply_when_storage_dies() {
    let server = server_of(2);
    let (mut awaiting, _) = server.session(2);
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    let (mut in_session, _) = server.session(1);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    in_session.send_bets(0, &bets(1, 0..3));
    let mut classic = server.connect();
    classic.send_frame(kind::BET, &Bet::made_up(1, 0).record());
    in_session.expect_silence();
    processes::send(storage, Signal::SIGKILL);
    for client in [&mut in_session, &mut classic, &mut awaiting] {
        client.expect_closed();
    }
    // The new storage service ignores requests of old clients that are still in the queue.
    let (mut client, opened) = server.session(1);
    assert_eq!(opened.stored, 0);
    client.store(0, &bets(1, 0..3));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..3)));
}

#[test]
fn a_storage_service_that_keeps_dying_ends_the_server() {
    let mut server = server_of(2);
    for _ in 0..5 {
        kill_storage(&server);
    }
    assert_eq!(status(server.port())["storage_restarts"], 5);
    processes::send(server.storage(), Signal::SIGKILL);
    let status = server.wait();
    assert_eq!(status.code(), Some(1));
    assert_eq!(server.log().lines_of("CRITICAL").len(), 1, "one line says why");
}

#[test]
fn a_request_whose_handler_dies_between_two_parts_is_not_stored() {
    let server = Setup::of(2).with("MAX_PAYLOAD", 1 << 20).start();
    let (mut victim, _) = server.session(1);
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    let (mut other, _) = server.session(2);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    // The queue holds only ten messages of 8 kB.
    victim.send(&bets_frame(0, &bets(1, 0..8000)));
    victim.expect_silence();
    processes::send(handler, Signal::SIGKILL);
    victim.expect_closed();
    processes::send(storage, Signal::SIGCONT);
    other.store(0, &bets(2, 0..3));
    assert_eq!(server.session(1).1.stored, 0);
    assert_eq!(server.bets_file(), rows(&bets(2, 0..3)));
}

#[test]
fn the_whole_requests_of_a_killed_handler_are_stored() {
    let server = server_of(2);
    let (mut victim, _) = server.session(1);
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    victim.send(&[bets_frame(0, &bets(1, 0..5)), bets_frame(5, &bets(1, 5..9))].concat());
    victim.send_frame(kind::END, b"");
    victim.expect_silence();
    processes::send(handler, Signal::SIGKILL);
    victim.expect_closed();
    processes::send(storage, Signal::SIGCONT);
    until("all of it is stored", || server.bets_file() == rows(&bets(1, 0..9)));
    let (mut back, opened) = server.session(1);
    assert_eq!((opened.stored, opened.state), (9, 1));
    back.send_bets(9, &bets(1, 9..10));
    back.expect_error();
}

/// An IPC namespace of its own, and the folder where its queues are visible.
struct IpcNamespace {
    keeper: Running,
    folder: tempfile::TempDir,
}

impl IpcNamespace {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script =
            format!("mount -t mqueue none {} && echo ready && exec sleep 60", folder.path().display());
        let mut command = Command::new("unshare");
        command.args(["--ipc", "--mount", "sh", "-c", &script]).stdout(Stdio::piped());
        let mut keeper = Running::start(&mut command);
        let mut line = String::new();
        BufReader::new(keeper.stdout()).read_line(&mut line).unwrap();
        if line.is_empty() {
            eprintln!("skipped: only root can make an IPC namespace");
            return None;
        }
        Some(Self { keeper, folder })
    }

    /// A command that runs its arguments in the namespace.
    fn enter(&self) -> [String; 3] {
        ["nsenter", "--ipc", &format!("--target={}", self.keeper.pid())].map(str::to_owned)
    }

    fn names(&self) -> Vec<String> {
        let folder = self.folder.path().strip_prefix("/").unwrap();
        let folder = Path::new("/proc").join(self.keeper.pid().to_string()).join("root").join(folder);
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Runs a server there that is killed after it made the queue and before it removed the name. Returns the name.
    fn leave_a_name(&self, setup: &Setup) -> Option<String> {
        let killed = setup.clone().with_fault("mq_open:signal=SIGKILL:when=2")?.run();
        assert_eq!(killed.code, None, "{}", killed.log.0);
        let names = self.names();
        assert_eq!(names.len(), 1, "{names:?}");
        names.into_iter().next()
    }
}

#[test]
fn the_name_of_a_queue_that_a_killed_server_left_is_removed_by_the_next_start() {
    let Some(namespace) = IpcNamespace::new() else { return };
    let enter = namespace.enter();
    let setup = Setup::of(2).started_by(&enter.each_ref().map(String::as_str));
    for _ in 0..3 {
        if namespace.leave_a_name(&setup).is_none() {
            return;
        }
    }
    let server = setup.start();
    assert_eq!(namespace.names(), Vec::<String>::new());
    server.session(1).0.store(0, &bets(1, 0..3));
}

#[test]
fn a_queue_name_that_another_user_has_taken_does_not_prevent_a_start() {
    let Some(namespace) = IpcNamespace::new() else { return };
    let Some(setup) = Setup::of(2).with_user_of_its_own() else { return };
    let user = setup.user().unwrap().to_string();
    let enter = namespace.enter();
    let enter = enter.each_ref().map(String::as_str);
    let become_user = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let setup = setup.started_by(&[&enter[..], &become_user].concat());
    let Some(name) = namespace.leave_a_name(&setup) else { return };
    let queue = namespace.folder.path().join(&name);
    let chown =
        Command::new(enter[0]).args(&enter[1..]).args(["--mount", "chown", "12345"]).arg(queue).status();
    assert!(chown.unwrap().success());
    let server = setup.start();
    assert_eq!(namespace.names(), [name]);
    server.session(1).0.store(0, &bets(1, 0..3));
}

/// Sends SIGRTMIN, for which nix has no name.
fn send_real_time_signal(pid: i32) {
    assert!(output(Command::new("sh").args(["-c", &format!("kill -34 {pid}")])).status.success());
}

#[test]
fn a_child_that_a_real_time_signal_kills_is_reaped_like_any_other() {
    let server = server_of(2);
    let (mut victim, _) = server.session(1);
    let (mut other, _) = server.session(2);
    send_real_time_signal(server.handlers()[0]);
    server.wait_for_handlers(1);
    victim.expect_closed();
    other.store(0, &bets(2, 0..3));
    let storage = server.storage();
    send_real_time_signal(storage);
    until("a new storage service lives", || server.storage() != storage);
    server.session(1);
    let log = server.log();
    assert_eq!(log.lines_with(" | error: killed by signal 34").len(), 2, "{}", log.0);
}

/// The kernel gives the orphans of a container to its process 1.
#[test]
fn an_orphan_that_a_real_time_signal_kills_is_reaped_like_any_other() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can make a PID namespace");
        return;
    }
    let server = Setup::new().started_by(&processes::AS_PROCESS_1).start();
    let process_1 = processes::children_of(server.pid())[0];
    let orphan = "sh -c 'sleep 0.3; kill -34 $$' & exit 0";
    let namespace = format!("--target={process_1}");
    assert!(output(Command::new("nsenter").args([&namespace, "--pid", "sh", "-c", orphan])).status.success());
    until("process 1 has the orphan", || processes::children_of(process_1).len() == 2);
    until("the orphan has ended", || processes::children_of(process_1).len() == 1);
    until("the orphan is reaped", || processes::unreaped_children_of(process_1) == 0);
    server.session(1).0.store(0, &bets(1, 0..3));
    processes::send(process_1, Signal::SIGTERM);
    until("all have ended", || server.processes().is_empty());
}
