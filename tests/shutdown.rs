//! SIGTERM, SIGINT, SIGHUP or SIGQUIT at any moment: exit code 0 within a second, and no process is left.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::bets::{of_agency, parse_rows};
use common::disks::FreezableDisk;
use common::{
    A_WHILE, Bet, Client, Running, RunningServer, Setup, bets, frame, kind, loteria, processes, rows,
    server_of, until, upload,
};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

/// Ends the server, which must take less than a second and leave no process.
#[track_caller]
fn end(mut server: RunningServer, signal: Signal) {
    let (status, time) = server.stop(signal);
    assert!(server.processes().is_empty(), "a process is left");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(time < Duration::from_secs(1), "{time:?}");
}

#[test]
fn a_silent_client_does_not_delay_the_end() {
    for signal in processes::termination_signals() {
        let server = Setup::new().start();
        let mut client = server.connect();
        server.wait_for_handlers(1);
        end(server, signal);
        client.expect_closed();
    }
}

#[test]
fn half_a_frame_does_not_delay_the_end_and_is_not_stored() {
    for signal in processes::termination_signals() {
        let server = Setup::new().start();
        let setup = server.setup();
        let mut client = server.connect();
        let whole = frame(kind::BET, &Bet::made_up(1, 0).record());
        client.send(&whole[..whole.len() - 1]);
        server.wait_for_handlers(1);
        end(server, signal);
        client.expect_closed();
        assert_eq!(setup.bets_file(), b"");
    }
}

#[test]
fn idle_and_awaiting_sessions_do_not_delay_the_end() {
    for signal in processes::termination_signals() {
        let server = Setup::new().start();
        let (mut idle, _) = server.session(1);
        let (mut awaiting, _) = server.session(2);
        awaiting.send_frame(kind::AWAIT_RESULT, b"");
        end(server, signal);
        idle.expect_closed();
        awaiting.expect_closed();
    }
}

#[test]
fn a_client_that_reads_no_replies_does_not_delay_the_end() {
    let server = Setup::of(1).with("MAX_PAYLOAD", 1 << 20).start();
    let (mut client, _) = server.session(1);
    client.store(0, &vec![common::winner(1, &"7".repeat(200)); 2000]);
    client.end_agency();
    client.send(&frame(kind::RESULT_REQUEST, b"").repeat(200));
    client.expect(kind::RESULT, vec!["7".repeat(200); 2000].join("\x1e").as_bytes());
    end(server, Signal::SIGTERM);
}

#[test]
fn two_hundred_clients_do_not_delay_the_end() {
    let server = server_of(200);
    let clients: Vec<_> = (1..=200).map(|agency| server.session(agency)).collect();
    end(server, Signal::SIGTERM);
    drop(clients);
}

#[test]
fn of_many_batches_in_flight_acknowledged_ones_are_stored_and_none_in_part() {
    const AGENCIES: u32 = 6;
    const BATCH: usize = 25;
    for signal in processes::termination_signals() {
        let server = server_of(AGENCIES);
        let setup = server.setup();
        let port = server.port();
        let acknowledged: Vec<AtomicU64> = (0..AGENCIES).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for (agency, acknowledged) in (1..).zip(&acknowledged) {
                scope.spawn(move || {
                    let all = bets(agency, 0..50_000);
                    upload(port, agency, &all, BATCH, acknowledged).ok();
                });
            }
            until("all agencies have stored bets", || {
                acknowledged.iter().all(|acknowledged| acknowledged.load(Ordering::SeqCst) > 200)
            });
            end(server, signal);
        });
        let stored = parse_rows(&setup.bets_file());
        for (agency, acknowledged) in (1..).zip(&acknowledged) {
            let rows = of_agency(&stored, agency);
            assert_eq!(rows.len() % BATCH, 0, "half a batch of agency {agency}");
            assert!(rows.len() as u64 >= acknowledged.load(Ordering::SeqCst), "agency {agency}");
            assert!(rows == bets(agency, 0..u32::try_from(rows.len()).unwrap()), "agency {agency}");
        }
    }
}

#[test]
fn requests_that_storage_has_received_are_stored_and_answered() {
    let server = Setup::new().start();
    let setup = server.setup();
    let (mut client, _) = server.session(1);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    client.send_bets(0, &bets(1, 0..10));
    client.expect_silence();
    server.signal(Signal::SIGTERM);
    processes::send(storage, Signal::SIGCONT);
    client.expect_stored(10);
    client.expect_closed();
    assert_eq!(setup.bets_file(), rows(&bets(1, 0..10)));
}

#[test]
fn a_stopped_handler_or_storage_service_does_not_delay_the_end() {
    for stop_storage in [true, false] {
        let server = Setup::new().start();
        let (client, _) = server.session(1);
        let stopped = if stop_storage { server.storage() } else { server.handlers()[0] };
        processes::send(stopped, Signal::SIGSTOP);
        end(server, Signal::SIGTERM);
        drop(client);
    }
}

/// How many messages fit into the control socket while storage reads none.
#[cfg(debug_assertions)]
fn messages_that_fit() -> usize {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_NONBLOCK);
    let (one, _other) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
    (0..10_000).find(|_| nix::unistd::write(&one, b"message").is_err()).expect("a socket that fills up")
}

/// Makes the acceptor send storage this many messages (one fewer if the number is odd): one for each client that comes and
/// one for each that leaves.
#[cfg(debug_assertions)]
fn send_storage(server: &RunningServer, messages: usize) {
    let before = server.handlers().len();
    let clients: Vec<Client> = (0..messages / 2).map(|_| server.connect()).collect();
    server.wait_for_handlers(before + clients.len());
    drop(clients);
    server.wait_for_handlers(before);
}

#[cfg(debug_assertions)]
#[test]
fn a_full_socket_to_storage_delays_the_end_only_until_storage_reads() {
    // Storage does not read while it writes to the disk. To stop it by SIGSTOP would not do: its SIGCONT wakes the acceptor.
    let write = Duration::from_secs(3);
    let point = format!("bets_written=1*sleep({})", write.as_millis());
    let mut server = Setup::new().with("FAILPOINTS", point).start();
    let (mut writer, _) = server.session(1);
    let [handler] = server.handlers()[..] else { panic!("one handler") };
    // Fill the socket exactly, so that the order to stop is the only message that waits. The first message says that the
    // writer has left. If an odd number is still missing, the next says that `other` has left.
    let fit = messages_that_fit();
    let other = fit.is_multiple_of(2).then(|| server.session(2));
    writer.send_bets(0, &bets(1, 0..1));
    until("storage writes", || !server.bets_file().is_empty());
    let nearly_written = Instant::now() + write.mul_f32(0.97);
    processes::send(handler, Signal::SIGKILL);
    drop(other);
    server.wait_for_handlers(0);
    send_storage(&server, fit - 1);
    std::thread::sleep(nearly_written.saturating_duration_since(Instant::now()));
    let (status, time) = server.stop(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{status}");
    // After 450 ms, the time that the handlers have, the acceptor would send the order in any case.
    assert!(time < Duration::from_millis(400), "{time:?}");
}

#[test]
fn a_signal_ends_it_at_each_of_a_hundred_moments_of_its_start() {
    // From the first act of `main`, which blocks the signals, until well after the server listens.
    let moment = |index: u32| {
        let server = Setup::new().spawn();
        // Before that the program has not begun, and the signal would kill the process.
        until("the program has begun", || processes::blocks_sigterm(server.pid()));
        std::thread::sleep(Duration::from_micros(600) * index);
        let signals = processes::termination_signals();
        end(server, signals[index as usize % signals.len()]);
    };
    std::thread::scope(|scope| {
        for first in 0..4 {
            scope.spawn(move || (first..100).step_by(4).for_each(moment));
        }
    });
}

#[test]
fn a_signal_ends_it_while_it_recovers_a_large_file() {
    let setup = Setup::new().write("bets.csv", rows(&bets(1, 0..100_000)).repeat(5));
    let server = setup.spawn();
    server.storage();
    end(server, Signal::SIGTERM);
}

#[test]
fn a_pipe_in_place_of_the_bets_file_is_refused_at_once() {
    let setup = Setup::new();
    mkfifo(&setup.bets_path(), Mode::S_IRWXU).unwrap();
    let failure = setup.run().failure();
    assert!(failure.contains("must be a regular file"), "{failure}");
}

#[test]
fn a_signal_ends_it_while_it_waits_for_the_lock_on_its_bets() {
    for signal in processes::termination_signals() {
        let setup = Setup::new().write("bets.csv", "");
        let file = setup.lock_bets();
        let server = setup.spawn();
        server.storage();
        end(server, signal);
        drop(file);
    }
}

#[test]
fn a_signal_ends_it_while_it_waits_for_its_port() {
    for signal in processes::termination_signals() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Setup::new().with("SERVER_PORT", held.local_addr().unwrap().port()).spawn();
        server.wait_for_config();
        end(server, signal);
    }
}

#[test]
fn a_signal_ends_it_while_it_reads_a_configuration_that_nobody_writes() {
    for signal in processes::termination_signals() {
        let setup = Setup::new();
        mkfifo(&setup.path("config.ini"), Mode::S_IRWXU).unwrap();
        let server = setup.spawn();
        until("the program has begun", || processes::is_loteria(server.pid()));
        std::thread::sleep(A_WHILE);
        end(server, signal);
    }
}

/// For process 1 of a container the kernel has no default action for signals.
#[test]
fn a_signal_ends_process_1_of_a_container_while_it_reads_a_configuration_that_nobody_writes() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can make a PID namespace");
        return;
    }
    let setup = Setup::new().started_by(&processes::AS_PROCESS_1);
    mkfifo(&setup.path("config.ini"), Mode::S_IRWXU).unwrap();
    let mut unshare = setup.spawn();
    let mut process_1 = 0;
    until("the program has begun", || {
        process_1 = processes::children_of(unshare.pid()).first().copied().unwrap_or(0);
        processes::is_loteria(process_1)
    });
    std::thread::sleep(A_WHILE);
    let begun = Instant::now();
    processes::send(process_1, Signal::SIGTERM);
    assert_eq!(unshare.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_sighup_that_was_ignored_at_the_start_does_not_end_the_server() {
    let server = Setup::new().started_by(&["nohup"]).start();
    server.signal(Signal::SIGHUP);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    end(server, Signal::SIGTERM);
}

/// Waits until a child of `parent` is in uninterruptible sleep. Returns the child.
fn stuck_child(parent: i32) -> i32 {
    let mut stuck = None;
    until("storage waits for the disk", || {
        stuck =
            processes::children_of(parent).into_iter().find(|child| processes::state(*child) == Some('D'));
        stuck.is_some()
    });
    stuck.unwrap()
}

#[test]
fn a_disk_that_does_not_answer_does_not_delay_the_end_and_the_log_names_the_process() {
    let Some(disk) = FreezableDisk::mount() else { return };
    for starting in [false, true] {
        let setup = Setup::new().with("STORAGE_FILEPATH", disk.path().join("bets.csv").display());
        let mut server = if starting { setup.spawn() } else { setup.start() };
        if !starting {
            let (mut client, _) = server.session(1);
            disk.freeze();
            client.send_bets(0, &bets(1, 0..1));
        }
        let storage = stuck_child(server.pid());
        let (status, time) = server.stop(Signal::SIGTERM);
        assert_eq!(status.code(), Some(1), "{status}");
        assert!(time < Duration::from_secs(1), "{time:?}");
        let log = server.log();
        let [line] = log.lines_with("result: fail")[..] else { panic!("one line: {}", log.0) };
        assert!(line.contains("storage") && line.contains(&format!("process {storage}")), "{line}");
        disk.thaw();
        until("storage has ended", || server.processes().is_empty());
        // The next server cannot even create its file.
        std::fs::remove_file(disk.path().join("bets.csv")).unwrap();
        std::fs::remove_file(disk.path().join("bets.csv.state")).ok();
        disk.freeze();
    }
}

/// The container stays until the disk answers, but the log line must come at once.
#[test]
fn process_1_of_a_container_names_at_once_the_process_that_waits_for_the_disk() {
    let Some(disk) = FreezableDisk::mount() else { return };
    let setup = Setup::new().with("STORAGE_FILEPATH", disk.path().join("bets.csv").display());
    let mut unshare = setup.started_by(&processes::AS_PROCESS_1).start();
    let process_1 = processes::children_of(unshare.pid())[0];
    let (mut client, _) = unshare.session(1);
    disk.freeze();
    client.send_bets(0, &bets(1, 0..1));
    stuck_child(process_1);
    let begun = Instant::now();
    processes::send(process_1, Signal::SIGTERM);
    until("the log says why", || !unshare.log().lines_of("CRITICAL").is_empty());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(unshare.log().lines_of("CRITICAL")[0].contains("storage"), "{}", unshare.log().0);
    disk.thaw();
    assert_eq!(unshare.wait().code(), Some(1));
}

#[test]
fn a_second_signal_changes_nothing() {
    let server = Setup::new().start();
    let (_client, _) = server.session(1);
    server.signal(Signal::SIGINT);
    server.signal(Signal::SIGTERM);
    end(server, Signal::SIGTERM);
}

#[test]
fn a_signal_to_the_whole_group_as_a_terminal_sends_it_ends_it_as_well() {
    let server = Setup::new().start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    for pid in server.processes() {
        processes::send(pid, Signal::SIGINT);
    }
    end(server, Signal::SIGINT);
}

#[test]
fn a_log_that_nobody_reads_does_not_delay_the_end() {
    use std::io::{BufRead as _, BufReader};
    let setup = Setup::new();
    let mut command = loteria(&["server"]);
    command.current_dir(setup.path(".")).env("SERVER_IP", "127.0.0.1").env("SERVER_PORT", "0");
    let mut server = Running::start(command.stderr(std::process::Stdio::piped()));
    let mut log = BufReader::new(server.stderr());
    let mut line = String::new();
    while !line.contains("action: listen") {
        line.clear();
        log.read_line(&mut line).unwrap();
    }
    let port: u16 = line.trim().rsplit(": ").next().unwrap().parse().unwrap();
    nix::fcntl::fcntl(log.get_ref(), nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    // Each client makes its handler write two lines. The pipe has no room for all of them.
    let mut clients: Vec<Client> = (0..60).map(|_| Client::connect(port)).collect();
    for client in &mut clients {
        client.send(b"\x77");
    }
    until("handlers wait for room in the log", || processes::children_of(server.pid()).len() > 5);
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end().code(), Some(0));
    let time = start.elapsed();
    assert!(time < Duration::from_secs(1), "{time:?}");
}
