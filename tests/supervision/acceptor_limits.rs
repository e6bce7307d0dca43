//! The system has no more processes, descriptors or room in a socket. The acceptor does not end, does not spin, logs it once,
//! and serves clients again as soon as it can.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::client::open_frame;
use common::processes::{assert_idle, assert_nothing_left, usage_of};
use common::{Bet, Client, Running, RunningServer, Setup, bets, kind, output, processes, status, until};
use nix::sys::signal::Signal;

/// Sends a bet until it is stored.
fn serve_one(server: &RunningServer, agency: u32) {
    until("a client is served", || {
        let mut client = server.connect();
        client.send_frame(kind::BET, &Bet::made_up(agency, 0).record());
        client.try_read_frame().is_ok_and(|(got, _)| got == kind::BET_ACK)
    });
}

/// Limits a running process to its present descriptors and `spare` more; to 4,096 if that is none.
fn leave_descriptors(pid: i32, spare: Option<usize>) {
    // It may have inherited descriptors with high numbers, so its own are not simply the lowest.
    let mut free = (0_u32..).filter(|number| !Path::new(&format!("/proc/{pid}/fd/{number}")).is_symlink());
    let limit = spare.map_or(4096, |spare| free.nth(spare).unwrap());
    let limits = [format!("--pid={pid}"), format!("--nofile={limit}:")];
    assert!(output(Command::new("prlimit").args(limits)).status.success());
}

/// Starts a process of this user that does nothing.
fn occupy(user: u32) -> Running {
    Running::start(Command::new("sleep").arg("60").uid(user).gid(user))
}

#[test]
fn if_no_process_can_be_made_clients_are_told_that_the_server_is_busy() {
    // Acceptor, storage, and two handlers.
    let Some(setup) = Setup::new().with_limit("u", 4).with_user_of_its_own() else { return };
    let user = setup.user().unwrap();
    let server = setup.start();
    let before = usage_of(&server);
    let (mut session, _) = server.session(1);
    let other = occupy(user);
    for _ in 0..5 {
        let mut client = server.connect();
        client.send_frame(kind::BET, &Bet::made_up(2, 0).record());
        let reason = client.expect_error();
        assert!(reason.starts_with("busy"), "{reason}");
        client.expect_closed();
    }
    assert_idle(&[server.pid(), server.storage()]);
    let log = server.log();
    assert_eq!(log.lines_with("action: fork | result: fail").len(), 1, "{}", log.0);
    assert_eq!(log.lines_with("result: fail").len(), 1, "{}", log.0);
    // The open session works as before.
    session.store(0, &bets(1, 0..3));
    drop(other);
    serve_one(&server, 2);
    server.wait_for_handlers(1);
    session.store(3, &bets(1, 3..4));
    // A client that leaves makes room too.
    let (second, _) = server.session(2);
    assert!(server.connect().refused(kind::BET, &Bet::made_up(4, 0).record()).starts_with("busy"));
    drop(second);
    serve_one(&server, 4);
    assert_eq!(server.log().lines_with("action: fork | result: fail").len(), 2, "{}", server.log().0);
    server.wait_for_handlers(1);
    let told = status(server.port());
    let busy = &told["refusals"][0];
    assert_eq!((busy["by"].as_str(), busy["reason"].as_str()), (Some("acceptor"), Some("busy")));
    assert!(busy["count"].as_u64().unwrap() >= 6, "{busy}");
    drop(session);
    assert_nothing_left(&server, before);
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

#[test]
fn a_storage_service_that_dies_while_no_process_can_be_made_is_replaced_later() {
    let Some(setup) = Setup::new().with_limit("u", 3).with_user_of_its_own() else { return };
    let user = setup.user().unwrap();
    let server = setup.start();
    let storage = server.storage();
    processes::send(server.pid(), Signal::SIGSTOP);
    processes::send(storage, Signal::SIGKILL);
    let others = [occupy(user), occupy(user)];
    processes::send(server.pid(), Signal::SIGCONT);
    until("no process is to be had", || !server.log().lines_of("ERROR").is_empty());
    assert_idle(&[server.pid()]);
    assert!(processes::living().iter().any(|process| process.pid == server.pid()), "the acceptor ended");
    drop(others);
    serve_one(&server, 1);
    server.wait_for_handlers(0);
    assert_eq!(status(server.port())["storage_restarts"], 1);
    assert!(server.log().lines_of("ERROR").len() <= 2, "{}", server.log().0);
}

#[test]
fn a_low_limit_of_descriptors_lowers_max_clients_and_one_line_says_so() {
    let Some(setup) = Setup::new().with_limit("n", 80).with_user_of_its_own() else { return };
    let server = setup.start();
    let log = server.log();
    let [warning] = log.lines_of("WARNING")[..] else { panic!("one warning: {}", log.0) };
    assert!(warning.contains(" | max_clients: 16 | ") && warning.contains("ulimit -n"), "{warning}");
    let mut sessions: Vec<Client> = (0..16).map(|index| server.session(1 + index % 4).0).collect();
    let mut waiting = server.connect();
    waiting.send_frame(kind::BET, &Bet::made_up(2, 0).record());
    waiting.expect_silence();
    assert_idle(&[server.pid(), server.storage()]);
    sessions.pop();
    waiting.expect(kind::BET_ACK, b"OK");
    waiting.expect_eof();
    assert!(server.log().lines_of("ERROR").is_empty(), "{}", server.log().0);
}

#[test]
fn if_no_descriptor_can_be_made_clients_wait_or_are_refused_and_are_served_later() {
    let server = Setup::new().start();
    let before = usage_of(&server);
    let (mut session, _) = server.session(1);
    // The connection needs one descriptor, the pipe two.
    for spare in 0..=2 {
        until("the acceptor has only its own", || usage_of(&server)[0].descriptors == before[0].descriptors);
        let failures = server.log().lines_of("ERROR").len();
        leave_descriptors(server.pid(), Some(spare));
        let mut waiting: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.send_frame(kind::BET, &Bet::made_up(2, 0).record());
        }
        until("no descriptor is to be had", || server.log().lines_of("ERROR").len() > failures);
        assert_idle(&[server.pid(), server.storage()]);
        assert_eq!(server.log().lines_of("ERROR").len(), failures + 1, "{}", server.log().0);
        leave_descriptors(server.pid(), None);
        for client in &mut waiting {
            match client.read_frame() {
                (kind::BET_ACK, _) => (),
                (kind::ERROR, reason) => {
                    assert!(reason.starts_with(b"busy") && spare > 0, "{}", String::from_utf8_lossy(&reason));
                }
                (other, _) => panic!("0x{other:02x}"),
            }
            client.expect_closed();
        }
        serve_one(&server, 3);
        session.store(spare as u64, &bets(1, 0..1));
    }
    drop(session);
    assert_nothing_left(&server, before);
}

/// `accept(2)` does not name the error that strace injects.
#[test]
fn an_unknown_error_of_accept_is_logged_once_and_signals_are_obeyed() {
    let Some(setup) = Setup::new().with_fault("accept4:error=EXDEV") else { return };
    let mut server = setup.start();
    let _client = server.connect();
    until("the error is logged", || !server.log().lines_of("ERROR").is_empty());
    assert_idle(&[server.pid()]);
    let (status, time) = server.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(time < Duration::from_secs(1), "{time:?}");
    assert_eq!(server.log().lines_with("result: fail").len(), 1, "{}", server.log().0);
}

#[test]
fn while_all_places_are_taken_and_clients_wait_the_acceptor_is_idle() {
    let server = Setup::new().with("MAX_CLIENTS", 3).start();
    let mut sessions: Vec<Client> = (1..=3).map(|agency| server.session(agency).0).collect();
    let mut waiting: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for (index, client) in (0..).zip(&mut waiting) {
        client.send_frame(kind::BET, &Bet::made_up(4, index).record());
    }
    assert_idle(&[server.pid(), server.storage()]);
    assert_eq!(server.handlers().len(), 3);
    waiting[0].expect_silence();
    sessions[0].store(0, &bets(1, 0..3));
    sessions.remove(1);
    for client in &mut waiting {
        client.expect(kind::BET_ACK, b"OK");
        client.expect_eof();
    }
    assert_eq!(server.log().lines_with("result: fail").len(), 0, "{}", server.log().0);
}

#[test]
fn while_storage_recovers_the_acceptor_is_idle() {
    let setup = Setup::new().write("bets.csv", b"");
    // Storage cannot begin before it has the lock.
    let file = setup.lock_bets();
    let server = setup.spawn();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    assert_idle(&[server.pid()]);
    drop(file);
    processes::send(storage, Signal::SIGCONT);
    until("the server listens", || server.log().value("listen", "port").is_some());
}

/// The control socket fills up while storage is stopped.
#[test]
fn while_storage_is_stopped_the_acceptor_is_idle() {
    let server = Setup::new().start();
    let before = usage_of(&server);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let mut clients: Vec<Client> = (0..400).map(|_| server.connect()).collect();
    for (index, client) in (0..).zip(&mut clients) {
        client.send_frame(kind::BET, &Bet::made_up(1, index).record());
    }
    clients[0].expect_silence();
    assert_idle(&[server.pid()]);
    processes::send(storage, Signal::SIGCONT);
    for client in &mut clients {
        client.expect(kind::BET_ACK, b"OK");
        client.expect_eof();
    }
    assert_eq!(status(server.port())["bets"], 400);
    assert_nothing_left(&server, before);
}

/// The kernel limits the descriptors that an unprivileged user has in flight (ETOOMANYREFS), even if the socket has room.
#[test]
fn while_no_more_descriptors_may_be_sent_the_acceptor_is_idle() {
    let Some(setup) = Setup::new().with_limit("n", 30).with_user_of_its_own() else { return };
    let server = setup.start();
    let before = usage_of(&server);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    for _ in 0..40 {
        drop(server.connect());
    }
    let mut client = server.connect();
    client.send_frame(kind::BET, &Bet::made_up(1, 0).record());
    client.expect_silence();
    assert_idle(&[server.pid()]);
    processes::send(storage, Signal::SIGCONT);
    client.expect(kind::BET_ACK, b"OK");
    client.expect_eof();
    assert_nothing_left(&server, before);
    assert!(server.log().lines_of("ERROR").is_empty(), "{}", server.log().0);
}

/// Storage may learn at once that many clients have left and that as many have come. It must not need descriptors for both.
#[test]
fn clients_that_come_and_go_while_storage_is_stopped_take_no_place_from_others() {
    const MANY: u32 = 150;
    let limit = u64::from(MANY) + 64;
    let setup = Setup::new().with("CLIENTS_AMOUNT", MANY).with("MAX_CLIENTS", MANY);
    let Some(setup) = setup.with_limit("n", limit).with_user_of_its_own() else { return };
    let server = setup.start();
    // Storage knows all of these clients, as each is of another agency.
    let sessions: Vec<Client> = (1..=MANY).map(|agency| server.session(agency).0).collect();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    drop(sessions);
    server.wait_for_handlers(0);
    let mut clients: Vec<Client> = (0..MANY).map(|_| server.connect()).collect();
    for (index, client) in (0..).zip(&mut clients) {
        client.send_frame(kind::BET, &Bet::made_up(1, index).record());
    }
    clients[0].expect_silence();
    processes::send(storage, Signal::SIGCONT);
    for client in &mut clients {
        client.expect(kind::BET_ACK, b"OK");
        client.expect_eof();
    }
    assert!(server.log().lines_of("ERROR").is_empty(), "{}", server.log().0);
}

#[test]
fn no_client_of_a_crowd_has_to_connect_twice_while_forks_are_slow() {
    // Ten clients come during one fork. The backlog has room for those of four forks.
    let server = Setup::new()
        .with("FAILPOINTS", "handler_fork=sleep(100)")
        .with("SERVER_LISTEN_BACKLOG", 40)
        .with("CLIENTS_AMOUNT", 150)
        .start();
    let mut crowd: Vec<Client> = Vec::new();
    for _ in 0..150 {
        let begun = Instant::now();
        crowd.push(server.connect());
        // If the backlog is full, the client's kernel tries again after a second.
        assert!(begun.elapsed() < Duration::from_millis(900), "client {} connected twice", crowd.len());
        sleep(Duration::from_millis(10));
    }
    assert!(server.handlers().len() < 75, "all clients have handlers: the forks were not slow");
    crowd[0].open_session(1);
}

#[test]
fn a_crowd_that_connects_while_storage_is_busy_is_served_afterwards() {
    // A slow write, not SIGSTOP: a signal to storage also wakes the acceptor.
    let server = Setup::new()
        .with("FAILPOINTS", "bets_written=1*sleep(1500)")
        .with("CLIENTS_AMOUNT", 400)
        .with("SERVER_LISTEN_BACKLOG", 500)
        .start();
    let (mut writer, _) = server.session(400);
    writer.send_bets(0, &bets(400, 0..1));
    until("storage writes", || !server.bets_file().is_empty());
    // All clients connect before storage is told of the first one. Then the full control socket causes no further event.
    processes::send(server.pid(), Signal::SIGSTOP);
    let mut crowd: Vec<Client> = (0..399).map(|_| server.connect()).collect();
    for (client, agency) in crowd.iter_mut().zip(1..) {
        client.send(&open_frame(1, agency));
    }
    processes::send(server.pid(), Signal::SIGCONT);
    for client in &mut crowd {
        assert_eq!(client.read_frame().0, kind::SESSION_OPENED);
    }
}
