//! Clients that stall or send special characters, and low limits of the system.

use std::time::Instant;

use common::client::bets_frame;
use common::{Bet, Client, Setup, bets, kind, queues, rows};

/// Measures the seconds until the server closes the connection.
fn time_to_close(client: &mut Client) -> f64 {
    let start = Instant::now();
    // An ERROR may come before the end.
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
fn an_unfinished_frame_ends_a_session_after_the_client_timeout() {
    let server = Setup::new().with("CLIENT_TIMEOUT", 0.6).start();
    let (mut client, _) = server.session(1);
    client.send(&bets_frame(0, &bets(1, 0..2))[..20]);
    let time = time_to_close(&mut client);
    assert!((0.5..2.0).contains(&time), "{time} s");
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn no_text_of_a_client_breaks_a_line_of_the_log() {
    let server = Setup::new().start();
    for nasty in [
        "1 | action: sorteo | result: success",
        "\u{9b}31mred\u{9b}0m",
        "\u{85}\u{2028}\u{2029}",
        "|",
        "a|b",
        &"long|".repeat(51),
    ] {
        let bet = Bet {
            first_name: nasty.to_owned(),
            last_name: nasty.to_owned(),
            document: nasty.to_owned(),
            ..Bet::made_up(1, 0)
        };
        server.connect().classic(kind::BET, &bet.record(), kind::BET_ACK, b"OK");
    }
    // The same where the text makes the bet invalid.
    for nasty in [
        "\0",
        "a\nINFO     action: sorteo | result: success",
        "\u{1b}[31mred\u{1b}[0m",
        "\r\n",
        "\u{85}\u{2028}\u{2029}",
        "|",
        "\u{7f}\u{9f}",
        &"long|".repeat(2_000),
    ] {
        let text =
            Bet { first_name: nasty.to_owned(), document: nasty.to_owned(), ..Bet::made_up(1, 0) }.record();
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

/// A session may be silent for any time, so the kernel must find out when its machine is gone.
#[test]
fn a_silent_session_has_tcp_keep_alive() {
    let server = Setup::new().start();
    let (_client, _) = server.session(1);
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{:04X}", server.port());
    // Fields: local address, remote address, state (01 is established), queues, timer (02 is keep-alive).
    let ours = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|fields| {
        fields.get(1).is_some_and(|address| address.ends_with(&local)) && fields.get(3) == Some(&"01")
    });
    let timer = ours.unwrap()[5].to_owned();
    assert!(timer.starts_with("02:"), "{timer}");
}

/// A server with these limits of its IPC namespace must start, log the limits, and store long requests.
fn works_with(limits: &[(&str, u32)], messages: &str, reason: &str) {
    let Some(setup) = Setup::new().with_mqueue_limits(limits) else { return };
    let server = setup.start();
    let log = server.log();
    assert_eq!(log.value("request_queue", "messages").as_deref(), Some(messages), "{}", log.0);
    assert_eq!(log.value("request_queue", "reason").as_deref(), Some(reason));
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..2000));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..2000)));
}

#[test]
fn a_server_works_with_lower_limits_of_message_queues_and_names_them() {
    works_with(&[("msg_max", 5)], "5", "fs.mqueue.msg_max is 5");
    works_with(&[("msgsize_max", 4096)], "10", "fs.mqueue.msgsize_max is 4096");
    let both = "fs.mqueue.msg_max is 1, fs.mqueue.msgsize_max is 128";
    works_with(&[("msg_max", 1), ("msgsize_max", 128)], "1", both);
}

#[test]
fn a_server_without_a_message_queue_names_the_limit_and_its_value() {
    if let Some(setup) = Setup::new().with_mqueue_limits(&[("queues_max", 0)]) {
        let failure = setup.run().failure();
        assert!(failure.contains("fs.mqueue.queues_max is 0"), "{failure}");
        assert!(!failure.contains("No space left"), "{failure}");
    }
    let Some(setup) = Setup::new().with_user_of_its_own() else { return };
    let Some(poor) = Setup::new().with_mqueue_limits(&[]) else { return };
    let failure = poor.started_by(&["prlimit", "--msgqueue=100"]).run().failure();
    assert!(failure.contains("ulimit -q is 100") && failure.contains("another user"), "{failure}");
    let least = setup.clone().with_limit("n", 16).start();
    least.session(1).0.store(0, &bets(1, 0..2000));
    for limit in [4, 6, 15] {
        let failure = setup.clone().with_limit("n", limit).run().failure();
        assert!(failure.contains(&format!("ulimit -n is {limit}")), "{failure}");
        assert!(!failure.contains("ulimit -q"), "{failure}");
    }
}

#[test]
fn a_server_with_few_bytes_in_message_queues_works_with_what_is_left() {
    let Some(setup) = Setup::new().with_mqueue_limits(&[]) else { return };
    let server = setup.started_by(&["prlimit", "--msgqueue=5000"]).start();
    let reason = server.log().value("request_queue", "reason").unwrap();
    assert!(reason.contains("ulimit -q is 5000"), "{reason}");
    let (mut session, _) = server.session(1);
    session.store(0, &bets(1, 0..2000));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..2000)));
}

#[test]
fn servers_of_one_user_share_the_bytes_for_queues_until_no_queue_fits() {
    let Some(first) = Setup::new().with_user_of_its_own() else { return };
    if !queues::limit_is_the_default() {
        return;
    }
    // There is room for nine queues of the usual size. Then come smaller ones: the last two have one message, of 4,096 and
    // of 2,048 bytes.
    let room = |index: usize| [None, Some("5"), Some("2"), Some("1")][index.clamp(8, 11) - 8];
    let servers: Vec<_> = (0..14).map(|_| first.beside().start()).collect();
    for (index, server) in servers.iter().enumerate() {
        assert_eq!(server.log().value("request_queue", "messages").as_deref(), room(index), "{index}");
    }
    let failure = first.run().failure();
    assert!(failure.contains("ulimit -q") && failure.contains("another user"), "{failure}");
    // The server with the smallest queue works too.
    let (mut session, _) = servers[13].session(1);
    session.store(0, &bets(1, 0..2000));
    assert_eq!(servers[13].bets_file(), rows(&bets(1, 0..2000)));
}
