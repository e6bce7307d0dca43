//! Results in a session: requested or awaited, short or long.

use common::client::open_frame;
use common::{Bet, Client, Setup, frame, kind, server_of, winner};

#[test]
fn a_result_is_answered_at_once_before_and_after_the_draw() {
    let server = server_of(2);
    let (mut client, _) = server.session(2);
    client.store(0, &[winner(2, "7"), winner(2, "7"), Bet::made_up(2, 2)]);
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::IN_PROGRESS, b"");
    client.end_agency();
    client.send_frame(kind::RESULT_REQUEST, b"\x02");
    client.expect(kind::IN_PROGRESS, b"");
    server.connect().classic_end(1);
    for payload in [&b""[..], b"\x02"] {
        client.send_frame(kind::RESULT_REQUEST, payload);
        client.expect(kind::RESULT, b"7\x1e7");
    }
    client.send_frame(kind::AWAIT_RESULT, b"");
    client.expect(kind::RESULT, b"7\x1e7");
}

#[test]
fn waiting_clients_get_their_results_when_the_last_agency_ends() {
    let server = server_of(3);
    let mut waiting: Vec<Client> = Vec::new();
    for agency in [1, 2, 3, 1] {
        let (mut client, opened) = server.session(agency);
        client.store(opened.stored, &[winner(agency, &format!("{agency}{}", opened.stored))]);
        client.send_frame(kind::AWAIT_RESULT, b"");
        waiting.push(client);
    }
    for agency in 1..=2 {
        server.session(agency).0.end_agency();
    }
    waiting[2].expect_silence();
    server.connect().classic_end(3);
    for (client, documents) in waiting.iter_mut().zip(["10\x1e11", "20", "30", "10\x1e11"]) {
        client.expect(kind::RESULT, documents.as_bytes());
    }
    // The sessions stay open.
    for client in &mut waiting {
        client.send_frame(kind::END, b"");
        client.expect(kind::BET_ACK, b"OK");
    }
}

#[test]
fn two_hundred_waiting_clients_all_get_their_results() {
    let server = server_of(51);
    let mut waiting: Vec<Client> = (0..200).map(|index| server.session(1 + index % 50).0).collect();
    waiting[0].store(0, &[winner(1, "11")]);
    waiting.iter_mut().for_each(Client::end_agency);
    for client in &mut waiting {
        client.send_frame(kind::AWAIT_RESULT, b"");
    }
    server.session(51).0.end_agency();
    for (index, client) in waiting.iter_mut().enumerate() {
        client.expect(kind::RESULT, if index % 50 == 0 { b"11" } else { b"" });
    }
}

#[test]
fn idle_and_awaiting_sessions_stay_open_beyond_the_client_timeout() {
    let server = Setup::of(2).with("CLIENT_TIMEOUT", 0.3).start();
    let (mut idle, _) = server.session(1);
    let (mut awaiting, _) = server.session(2);
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    for _ in 0..4 {
        awaiting.expect_silence();
    }
    idle.store(0, &[winner(1, "1")]);
    idle.end_agency();
    server.connect().classic_end(2);
    awaiting.expect(kind::RESULT, b"");
}

#[test]
fn closing_or_half_closing_while_awaiting_ends_the_handler() {
    let server = server_of(2);
    let (mut closing, _) = server.session(1);
    let (mut half_closing, _) = server.session(1);
    for client in [&mut closing, &mut half_closing] {
        client.send_frame(kind::AWAIT_RESULT, b"");
    }
    server.wait_for_handlers(2);
    drop(closing);
    server.wait_for_handlers(1);
    half_closing.half_close();
    half_closing.expect_eof();
    server.wait_for_handlers(0);
}

#[test]
fn a_client_that_half_closes_after_the_draw_still_gets_its_result() {
    let server = server_of(1);
    server.session(1).0.end_agency();
    let mut client = server.connect();
    client.send(&[open_frame(1, 1), frame(kind::AWAIT_RESULT, b""), frame(kind::AWAIT_RESULT, b"")].concat());
    client.half_close();
    assert_eq!(client.read_frame().0, kind::SESSION_OPENED);
    client.expect(kind::RESULT, b"");
    client.expect(kind::RESULT, b"");
    client.expect_eof();
}

#[test]
fn a_result_of_many_pages_is_exact() {
    let server = server_of(2);
    let documents: Vec<String> = (0..3000).map(|index| format!("{}", 10_000_000 + index * 7)).collect();
    let all: Vec<Bet> = documents.iter().map(|document| winner(1, document)).collect();
    let (mut client, _) = server.session(1);
    for (index, batch) in all.chunks(500).enumerate() {
        client.store(500 * index as u64, batch);
    }
    client.end_agency();
    let (mut awaiting, _) = server.session(1);
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    server.connect().classic_end(2);
    let expected = documents.join("\x1e").into_bytes();
    client.send(&frame(kind::RESULT_REQUEST, b"").repeat(5));
    for _ in 0..5 {
        client.expect(kind::RESULT, &expected);
    }
    awaiting.expect(kind::RESULT, &expected);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, &expected);
}

#[test]
fn an_empty_document_wins_like_any_other() {
    let server = server_of(1);
    let (mut client, _) = server.session(1);
    client.store(0, &["", "", "x", ""].map(|document| winner(1, document)));
    client.end_agency();
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::RESULT, b"\x1e\x1ex\x1e");
}

#[test]
fn the_longest_documents_win_too() {
    let server = server_of(1);
    let longest = ["9".repeat(255), String::new(), "\"".repeat(255), "ñ".repeat(127)];
    let documents: Vec<String> = longest.into_iter().cycle().take(80).collect();
    let (mut client, _) = server.session(1);
    client.store(0, &documents.iter().map(|document| winner(1, document)).collect::<Vec<_>>());
    client.end_agency();
    client.send_frame(kind::AWAIT_RESULT, b"");
    client.expect(kind::RESULT, documents.join("\x1e").as_bytes());
}
