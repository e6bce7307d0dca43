//! Clients that stall, flood or lie, and what the system does not give.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod common;

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::client::bets_frame;
use common::{Bet, Client, Setup, bets, frame, kind, processes, queues, records, rows, status, winner};
use nix::sys::signal::Signal;

const A_WHILE: Duration = Duration::from_millis(300);

/// How long it takes until the server closes the connection.
fn time_to_close(client: &mut Client) -> f64 {
    let start = Instant::now();
    // A reason may come before the end.
    if let Ok((got, _)) = client.try_read_frame() {
        assert_eq!(got, kind::ERROR);
    }
    client.expect_closed();
    start.elapsed().as_secs_f64()
}

#[test]
fn a_client_without_a_first_frame_is_closed_after_the_client_timeout() {
    let server = Setup::new().with("CLIENT_TIMEOUT", 0.6).start();
    for begun in [&b""[..], b"\x01", b"\x09\0\0\0\x05\x01"] {
        let mut client = server.connect();
        client.send(begun);
        let time = time_to_close(&mut client);
        assert!((0.5..2.0).contains(&time), "{begun:?}: {time} s");
    }
    server.wait_for_handlers(0);
}

#[test]
fn a_client_without_a_first_frame_is_closed_after_five_seconds_at_the_latest() {
    let server = Setup::new().with("CLIENT_TIMEOUT", 30).start();
    let time = time_to_close(&mut server.connect());
    assert!((4.5..7.0).contains(&time), "{time} s");
}

#[test]
fn a_frame_that_a_session_begins_and_does_not_finish_ends_it_after_the_client_timeout() {
    let server = Setup::new().with("CLIENT_TIMEOUT", 0.6).start();
    let (mut client, _) = server.session(1);
    client.send(&bets_frame(0, &bets(1, 0..2))[..20]);
    let time = time_to_close(&mut client);
    assert!((0.5..2.0).contains(&time), "{time} s");
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn a_client_that_takes_no_replies_is_closed_after_the_client_timeout() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 1).with("CLIENT_TIMEOUT", 0.6).start();
    let (mut client, _) = server.session(1);
    client.store(0, &vec![winner(1, &"7".repeat(200)); 4000]);
    client.end_agency();
    client.send(&frame(kind::RESULT_REQUEST, b"").repeat(100));
    server.wait_for_handlers(0);
    server.connect().classic(
        kind::RESULT_REQUEST,
        &[1],
        kind::RESULT,
        vec!["7".repeat(200); 4000].join("\x1e").as_bytes(),
    );
}

#[test]
fn a_slow_reader_of_a_large_result_gets_all_of_it() {
    let server = Setup::new().with("CLIENTS_AMOUNT", 1).start();
    let (mut client, _) = server.session(1);
    client.store(0, &vec![winner(1, &"7".repeat(200)); 4000]);
    client.end_agency();
    client.send(&frame(kind::RESULT_REQUEST, b"").repeat(10));
    let expected = vec!["7".repeat(200); 4000].join("\x1e");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(20));
        client.expect(kind::RESULT, expected.as_bytes());
    }
}

#[test]
fn clients_above_max_clients_wait_until_one_leaves() {
    let server = Setup::new().with("MAX_CLIENTS", 2).start();
    let (first, _) = server.session(1);
    let (_second, _) = server.session(2);
    let mut third = server.connect();
    third.send_frame(kind::BET, &Bet::made_up(3, 0).record());
    third.expect_silence(A_WHILE);
    assert_eq!(server.handlers().len(), 2);
    drop(first);
    third.expect(kind::BET_ACK, b"OK");
    third.expect_eof();
    assert_eq!(server.bets_file(), rows(&bets(3, 0..1)));
}

#[test]
fn with_one_client_at_a_time_all_get_their_turn() {
    let server = Setup::new().with("MAX_CLIENTS", 1).start();
    let mut clients: Vec<Client> = (0..30).map(|_| server.connect()).collect();
    for (index, client) in (0..).zip(&mut clients) {
        client.send_frame(kind::BET, &Bet::made_up(1, index).record());
    }
    for client in &mut clients {
        client.expect(kind::BET_ACK, b"OK");
        client.expect_eof();
    }
    assert_eq!(server.bets_file().split(|byte| *byte == b'\n').count(), 31);
}

#[test]
fn garbage_harms_nobody() {
    let server = Setup::new().start();
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[3]
    };
    for round in 0..100_usize {
        let mut garbage: Vec<u8> = (0..round * 7).map(|_| next()).collect();
        // Every other time a frame that begins well: a known type, and a length that fits.
        if round % 2 == 0 && garbage.len() > 10 {
            let length = u16::try_from(garbage.len() - 5).unwrap().to_be_bytes();
            let kind = next() % 0x10;
            garbage[..5].copy_from_slice(&[kind, 0, 0, length[0], length[1]]);
        }
        let mut client = server.connect();
        // The server may have closed already.
        client.stream.write_all(&garbage).ok();
        client.stream.shutdown(Shutdown::Write).ok();
        while let Ok((got, _)) = client.try_read_frame() {
            assert_eq!(got, kind::ERROR);
        }
    }
    assert_eq!(server.bets_file(), b"");
    assert_eq!(status(server.port())["storage_restarts"], 0);
    server.connect().classic(kind::BET, &Bet::made_up(1, 0).record(), kind::BET_ACK, b"OK");
}

#[test]
fn no_text_of_a_client_breaks_a_line_of_the_log() {
    let server = Setup::new().start();
    for nasty in [
        "\0",
        "a\nINFO     action: sorteo | result: success",
        "1 | action: sorteo | result: success",
        "\u{1b}[31mred\u{1b}[0m",
        "\r\n",
        "\u{85}\u{2028}\u{2029}",
        "|",
        "a|b",
        "\u{7f}\u{9f}",
        &"long|".repeat(10_000),
    ] {
        let bet = Bet {
            first_name: nasty.to_owned(),
            last_name: nasty.to_owned(),
            document: nasty.to_owned(),
            ..Bet::made_up(1, 0)
        };
        server.connect().classic(kind::BET, &bet.record(), kind::BET_ACK, b"OK");
        // And where the text is what is wrong with the bet.
        let text = bet.record();
        for bad in [
            [nasty, "\x1fa\x1fb\x1fc\x1f2000-01-01\x1f1"].concat(),
            format!("1\x1fa\x1fb\x1fc\x1f{nasty}\x1f1"),
        ] {
            server.connect().refused(kind::BET, bad.as_bytes());
            server.connect().refused(kind::MULTIPLE_BETS, &[&text, bad.as_bytes()].join(&0x1e));
        }
    }
    let log = server.log();
    log.assert_well_formed();
    assert!(log.has("apuesta_almacenada | result: success | dni: a\\x7cb | numero: 0"));
    assert!(log.lines().all(|line| !line.contains("action: sorteo | result: success")));
    assert!(log.0.lines().all(|line| line.len() <= 4096));
}

#[test]
fn clients_that_come_while_storage_does_not_move_are_served_once_it_does() {
    let server = Setup::new().start();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    // More than what the way to the storage service holds, be it requests or pipes.
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for (index, client) in (0..).zip(&mut clients) {
        client.send_frame(kind::BET, &Bet::made_up(1, index).record());
    }
    let silent: Vec<Client> = (0..300).map(|_| server.connect()).collect();
    clients[0].expect_silence(A_WHILE);
    processes::send(storage, Signal::SIGCONT);
    for client in &mut clients {
        client.expect(kind::BET_ACK, b"OK");
        client.expect_eof();
    }
    drop(silent);
    assert_eq!(status(server.port())["bets"], 100);
}

#[test]
fn a_batch_that_the_disk_does_not_take_is_refused_whole_and_the_server_goes_on() {
    // 128 blocks of 512 bytes.
    let server = Setup::new().with_file_limit(128).with("LOGGING_LEVEL", "INFO").start();
    let small = bets(1, 0..300);
    let (mut client, _) = server.session(1);
    client.store(0, &small);
    client.send(&[bets_frame(300, &bets(1, 300..2000)), bets_frame(2000, &bets(1, 2000..2001))].concat());
    let reason = client.expect_error();
    assert!(!reason.is_empty());
    client.expect_error();
    assert_eq!(server.bets_file(), rows(&small));
    server.connect().refused(kind::MULTIPLE_BETS, &records(&bets(2, 0..2000)));
    assert_eq!(server.bets_file(), rows(&small));
    // What fits is taken again, in the same session and beside it.
    client.store(300, &bets(1, 300..310));
    server.connect().classic(kind::BET, &Bet::made_up(2, 0).record(), kind::BET_ACK, b"OK");
    assert_eq!(server.bets_file(), rows(&[bets(1, 0..310), bets(2, 0..1)].concat()));
    client.end_agency();
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

/// A session may be silent for as long as it likes, so the kernel has to notice when its machine is gone.
#[test]
fn a_silent_session_is_kept_honest_by_keep_alive() {
    let server = Setup::new().start();
    let (_client, _) = server.session(1);
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{:04X}", server.port());
    // local address, remote address, state 01 (established), queues, timer 02 (keep-alive): see proc_net_tcp(5).
    let ours = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|fields| {
        fields.get(1).is_some_and(|address| address.ends_with(&local)) && fields.get(3) == Some(&"01")
    });
    let timer = ours.unwrap()[5].to_owned();
    assert!(timer.starts_with("02:"), "{timer}");
}

#[test]
fn servers_of_one_user_share_its_bytes_in_queues_until_there_is_no_room_for_one_more() {
    let Some(first) = Setup::new().with_user_of_its_own() else { return };
    if !queues::limit_is_the_usual_one() {
        return;
    }
    // Nine whole queues, and then what is left.
    let room = |index| [None, Some("5"), Some("2"), Some("1")][usize::max(index, 8) - 8];
    let servers: Vec<_> = (0..12).map(|_| first.beside().start()).collect();
    for (index, server) in servers.iter().enumerate() {
        assert_eq!(server.log().value("request_queue", "messages").as_deref(), room(index), "{index}");
    }
    let failure = first.run().failure();
    assert!(failure.contains("ulimit -q") && failure.contains("another user"), "{failure}");
    // The smallest queue is one too.
    let (mut session, _) = servers[11].session(1);
    session.store(0, &bets(1, 0..2000));
    assert_eq!(servers[11].bets_file(), rows(&bets(1, 0..2000)));
}
