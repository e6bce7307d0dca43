//! Hostile clients. An honest client beside them is served at once. After them the server has no more processes, memory or
//! descriptors than before, and is idle. (At the end of each test, `RunningServer` checks the log.)

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::client::{bets_frame, open_frame};
use common::processes::{Usage, are_idle, assert_idle, assert_nothing_left, usage_of};
use common::{
    Bet, Client, Honest, RunningServer, Setup, assert_at_once, bets, frame, kind, records, status, until,
    winner,
};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// A random number generator (xorshift) that its seed determines.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    /// Changes, removes or doubles some bytes.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 0x1e, 0x1f, 0xff, b'\n', b'|', b'"'][self.below(7)],
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
    }
}

/// Closes the connection with a RST.
fn reset(client: Client) {
    setsockopt(&client.stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(client);
}

/// One whole frame of each type that a client sends. The bets have an impossible date, so they are refused.
fn frames() -> [Vec<u8>; 8] {
    let bad: Vec<Bet> =
        bets(2, 0..2).into_iter().map(|bet| Bet { birthdate: "1999-02-31".to_owned(), ..bet }).collect();
    [
        frame(kind::BET, &bad[0].record()),
        frame(kind::MULTIPLE_BETS, &records(&bad)),
        frame(kind::END, &[99]),
        frame(kind::RESULT_REQUEST, &[2]),
        open_frame(1, 2),
        bets_frame(0, &bad),
        frame(kind::AWAIT_RESULT, b""),
        frame(kind::STATUS_REQUEST, b""),
    ]
}

#[test]
fn truncated_garbled_and_oversized_frames_harm_nobody() {
    let server = Setup::new().start();
    let before = usage_of(&server);
    let mut honest = Honest::new(&server, 1);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..240 {
        let mut client = server.connect();
        let mut bytes = frames()[random.below(8)].clone();
        match round % 4 {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => bytes = random.bytes(round),
            2 => random.mutate(&mut bytes),
            // A length that is far over the limit, or just over it.
            _ => {
                let length = [u32::MAX, 1 << 31, (1 << 16) + 1][random.below(3)];
                bytes[1..5].copy_from_slice(&length.to_be_bytes());
                bytes.extend(random.bytes(5000));
            }
        }
        // Half of them in a session.
        if random.below(2) == 0 {
            client.open_session(2);
        }
        // The server may have closed already.
        client.stream.write_all(&bytes).ok();
        match random.below(3) {
            0 => {
                client.stream.shutdown(Shutdown::Write).ok();
                // The connection must end: by a close, or by a reset if the server left bytes unread.
                if let Err(error) = client.stream.read_to_end(&mut Vec::new()) {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                }
            }
            1 => reset(client),
            _ => drop(client),
        }
        if round % 50 == 0 {
            honest.is_served_at_once(&server);
        }
    }
    honest.leave(&server);
    assert_nothing_left(&server, before);
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

#[test]
fn an_announced_length_takes_no_memory() {
    let server = Setup::new().with("MAX_PAYLOAD", 1 << 20).start();
    let mut small: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut small {
        client.send(&[kind::MULTIPLE_BETS, 0, 0, 0, 99, b'1']);
    }
    let most = |count: usize| {
        server.wait_for_handlers(count);
        let handlers = server.handlers();
        // An idle handler has read all that was sent.
        until("the handlers have read all", || are_idle(&handlers));
        handlers.into_iter().filter_map(Usage::of).map(|usage| usage.resident_kib).max().unwrap()
    };
    let before = most(4);
    let mut large: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut large {
        client.send(&[kind::MULTIPLE_BETS, 0, 0x10, 0, 0, b'1']);
    }
    let after = most(8);
    assert!(after < before + 512, "{before} KiB became {after} KiB");
}

#[test]
fn resets_and_closes_at_every_stage_harm_nobody() {
    let batch = bets_frame(9, &bets(2, 0..500));
    let bet = frames()[0].clone();
    let stages: [&[&[u8]]; 8] = [
        &[],
        &[&bet[..3]],
        &[&bet[..20]],
        &[&bet],
        &[&open_frame(1, 2)],
        &[&open_frame(1, 2), &batch[..9000]],
        // The batch leaves a gap, so it is refused.
        &[&open_frame(1, 2), &batch, &batch],
        &[&open_frame(1, 2), &frame(kind::AWAIT_RESULT, b"")],
    ];
    let server = Setup::new().start();
    let before = usage_of(&server);
    let mut honest = Honest::new(&server, 1);
    for round in 0..9 {
        for stage in stages {
            let mut client = server.connect();
            for bytes in stage {
                client.send(bytes);
            }
            // In some rounds the server has time to read everything first.
            std::thread::sleep(Duration::from_millis(round / 3 * 5));
            if round % 2 == 0 { reset(client) } else { drop(client) }
        }
        honest.is_served_at_once(&server);
    }
    honest.leave(&server);
    assert_nothing_left(&server, before);
}

#[test]
fn frames_that_drip_in_are_cut_off_and_harm_nobody() {
    let server = Setup::new().with("CLIENT_TIMEOUT", 1).start();
    let before = usage_of(&server);
    let mut honest = Honest::new(&server, 1);
    let mut slow: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for (index, client) in (0..15).zip(&mut slow[15..]) {
        client.open_session(2 + index % 4);
    }
    let bytes = bets_frame(0, &bets(2, 0..20));
    let start = Instant::now();
    for byte in &bytes {
        // The server closes each connection before the frame is complete.
        let alive = slow.iter_mut().filter_map(|client| client.stream.write_all(&[*byte]).ok()).count();
        if alive == 0 {
            break;
        }
        honest.take_turn(&server);
        std::thread::sleep(Duration::from_millis(20));
        assert!(start.elapsed() < Duration::from_secs(5), "{alive} are still alive");
    }
    honest.is_served_at_once(&server);
    honest.leave(&server);
    assert_nothing_left(&server, before);
}

#[test]
fn five_hundred_silent_connections_harm_nobody() {
    let server = Setup::new().start();
    let before = usage_of(&server);
    let mut honest = Honest::new(&server, 1);
    let silent: Vec<Client> = (0..500).map(|_| server.connect()).collect();
    server.wait_for_handlers(501);
    honest.is_served_at_once(&server);
    assert_idle(&[server.pid(), server.storage()]);
    drop(silent);
    honest.is_served_at_once(&server);
    honest.leave(&server);
    assert_nothing_left(&server, before);
}

#[test]
fn silent_connections_for_whose_places_nobody_waits_are_closed_after_five_seconds() {
    let server = Setup::new().with("MAX_CLIENTS", 20).start();
    let before = usage_of(&server);
    let start = Instant::now();
    let silent: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for mut client in silent {
        client.expect_closed();
    }
    let time = start.elapsed().as_secs_f64();
    assert!((4.5..6.5).contains(&time), "{time} s");
    assert_nothing_left(&server, before);
}

#[test]
fn clients_that_never_read_a_large_result_are_closed_and_harm_nobody() {
    let server = Setup::of(2).with("CLIENT_TIMEOUT", 3).start();
    let (mut session, _) = server.session(1);
    session.store(0, &vec![winner(1, &"7".repeat(200)); 4000]);
    session.end_agency();
    let (mut honest, _) = server.session(2);
    honest.store(0, &[winner(2, "22")]);
    honest.end_agency();
    drop(session);
    server.wait_for_handlers(1);
    let memory = usage_of(&server);
    let mut deaf: Vec<Client> = (0..4).map(|_| server.session(1).0).collect();
    for client in &mut deaf {
        client.send(&frame(kind::RESULT_REQUEST, b"").repeat(100));
    }
    assert_at_once(|| {
        honest.send_frame(kind::RESULT_REQUEST, b"");
        honest.expect(kind::RESULT, b"22");
        server.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"22");
    });
    // When the sockets are full, the processes are idle.
    until("the sockets are full", || {
        for Usage { resident_kib, .. } in server.handlers().into_iter().filter_map(Usage::of) {
            assert!(
                resident_kib < memory[1].resident_kib + 4096,
                "a handler buffers replies: {resident_kib} KiB"
            );
        }
        are_idle(&server.processes())
    });
    assert_eq!(server.handlers().len(), 5);
    until("the clients that do not read are closed", || server.handlers().len() == 1);
    drop(honest);
    assert_nothing_left(&server, memory);
}

/// The number of refusals in the server's status.
fn refusals(server: &RunningServer) -> u64 {
    let told = status(server.port());
    told["refusals"].as_array().unwrap().iter().map(|refused| refused["count"].as_u64().unwrap()).sum()
}

#[test]
fn floods_of_malformed_frames_in_a_session_harm_nobody() {
    let server = Setup::new().start();
    let before = usage_of(&server);
    let mut honest = Honest::new(&server, 1);
    let enough = AtomicBool::new(false);
    let bad = [bets_frame(7, &bets(3, 0..2)), frame(kind::SESSION_BETS, b"short"), frame(kind::END, &[1])];
    std::thread::scope(|scope| {
        // One client reads its refusals, the other does not.
        for takes in [true, false] {
            let (mut client, _) = server.session(2);
            let mut reader = client.stream.try_clone().unwrap();
            let (flood, enough) = (bad.concat().repeat(1000), &enough);
            if takes {
                scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap_or_default());
            }
            scope.spawn(move || {
                client.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                while !enough.load(Ordering::SeqCst) {
                    client.stream.write_all(&flood).ok();
                }
                client.stream.shutdown(Shutdown::Both).ok();
            });
        }
        // The threads must end even if this fails.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the flood is refused", || refusals(&server) > 1000);
            honest.is_served_at_once(&server);
            honest.is_served_at_once(&server);
        }));
        enough.store(true, Ordering::SeqCst);
        outcome.unwrap();
    });
    honest.leave(&server);
    assert_nothing_left(&server, before);
}
