//! The memory that a client can cost. docs/operations.md states it.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::processes::{self, are_idle, peak_kib, private_kib};
use common::{A_WHILE, Bet, Client, RunningServer, Setup, frame, kind, records, until};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

const CLIENTS: u32 = 64;
/// What docs/operations.md promises for each client, with the default settings.
const PROMISED_KIB: u64 = 512;
const MAX_PAYLOAD: usize = 65_536;

/// Records of texts that are nothing but quotes, which are longest as rows.
fn longest_records(agency: u32, length: usize) -> Vec<u8> {
    let quotes = "\"".repeat(255);
    let bet = Bet {
        first_name: quotes.clone(),
        last_name: quotes.clone(),
        document: quotes,
        ..Bet::made_up(agency, 0)
    };
    records(&vec![bet.clone(); length / (bet.record().len() + 1)])
}

/// Sends the longest message from each client while storage is stopped, then lets storage take all of them. Returns the
/// memory of the whole server for each client, in KiB: what the handlers use when nothing is left to do for them, and what
/// storage uses at most.
fn memory_per_client(
    server: &RunningServer,
    mut clients: Vec<Client>,
    message: impl Fn(u32) -> Vec<u8>,
    reply: u8,
) -> u64 {
    let storage = server.storage();
    let (before, peak_before) = (private_kib(storage), peak_kib(storage));
    processes::send(storage, Signal::SIGSTOP);
    for (index, client) in (0..).zip(&mut clients) {
        client.send(&message(1 + index / 4));
    }
    server.wait_for_handlers(clients.len());
    until("the handlers wait for storage", || are_idle(&server.handlers()));
    let handlers: u64 = server.handlers().into_iter().map(private_kib).sum();
    processes::send(storage, Signal::SIGCONT);
    for client in &mut clients {
        assert_eq!(client.read_frame().0, reply);
    }
    let of_storage = before + peak_kib(storage) - peak_before;
    (handlers + of_storage + private_kib(server.pid())) / u64::from(CLIENTS)
}

#[test]
fn clients_with_the_longest_message_in_flight_cost_less_than_half_a_mebibyte_each() {
    let agencies = CLIENTS / 4;
    let setup = Setup::of(agencies).with("MAX_CLIENTS", CLIENTS).without("LOGGING_LEVEL");
    let server = setup.start();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    let classic = |agency| frame(kind::MULTIPLE_BETS, &longest_records(agency, MAX_PAYLOAD));
    let used = memory_per_client(&server, clients, classic, kind::BET_ACK);
    assert!(used < PROMISED_KIB, "classic: {used} KiB");
    drop(server);
    let server = Setup::of(agencies).with("MAX_CLIENTS", CLIENTS).start();
    let clients: Vec<Client> = (0..CLIENTS).map(|index| server.session(1 + index / 4).0).collect();
    let session = |agency| {
        let records = longest_records(agency, MAX_PAYLOAD - 8);
        frame(kind::SESSION_BETS, &[&[0; 8], &records[..]].concat())
    };
    let used = memory_per_client(&server, clients, session, kind::SESSION_STORED);
    assert!(used < PROMISED_KIB, "session: {used} KiB");
}

/// The kernel gives a connection more memory while its bytes are taken fast.
#[test]
fn the_kernel_keeps_little_of_what_a_handler_does_not_read() {
    let server = Setup::of(2).start();
    let (mut client, _) = server.session(1);
    setsockopt(&client.stream, sockopt::SndBuf, &16_384).unwrap();
    let batch = frame(kind::SESSION_BETS, &vec![0; 60_000]);
    let mut answers = client.stream.try_clone().unwrap();
    let until = Instant::now() + Duration::from_millis(700);
    std::thread::scope(|scope| {
        scope.spawn(|| std::io::copy(&mut answers, &mut std::io::sink()).ok());
        while Instant::now() < until {
            client.send(&batch);
        }
        client.send_frame(kind::AWAIT_RESULT, b"");
        client.stream.set_write_timeout(Some(A_WHILE)).unwrap();
        let mut unread = 0;
        while let Ok(count) = client.stream.write(&batch) {
            unread += count;
        }
        assert!(unread < 400_000, "{unread} bytes");
        client.stream.shutdown(Shutdown::Both).unwrap();
    });
}
