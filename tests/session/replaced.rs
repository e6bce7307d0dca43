//! An agency has at most four sessions: a fifth replaces the one whose last request is the oldest.

use std::io::Read as _;
use std::time::Duration;

use common::agencies::Agency;
use common::client::{bets_frame, open_frame};
use common::processes::{are_idle, assert_nothing_left, usage_of};
use common::{
    Bet, Client, Honest, RunningServer, Setup, bets, frame, kind, processes, rows, server_of, until, winner,
};
use nix::sys::signal::Signal;

/// Reads the end of a session that was replaced.
#[track_caller]
fn expect_replaced(client: &mut Client) {
    let reason = client.expect_error();
    assert!(reason.starts_with("busy: "), "{reason}");
    client.expect_eof();
}

#[track_caller]
fn expect_open(client: &mut Client) {
    client.send_frame(kind::RESULT_REQUEST, b"");
    client.expect(kind::IN_PROGRESS, b"");
}

/// Four sessions of agency 1, each with a request behind those of the sessions before it.
fn four_sessions(server: &RunningServer) -> Vec<Client> {
    (0..4).map(|_| server.session(1).0).collect()
}

#[test]
fn a_fifth_session_replaces_the_one_whose_last_request_is_the_oldest() {
    let server = server_of(2);
    let mut sessions = four_sessions(&server);
    // A RESULT_REQUEST before the draw is answered without storage, so it does not count.
    sessions[0].store(0, &bets(1, 0..1));
    let (other, _) = server.session(2);
    sessions.push(server.session(1).0);
    expect_replaced(&mut sessions.remove(1));
    sessions.iter_mut().for_each(expect_open);
    sessions.push(server.session(1).0);
    expect_replaced(&mut sessions.remove(1));
    // One that closes leaves its place.
    drop(sessions.remove(0));
    server.wait_for_handlers(4);
    sessions.push(server.session(1).0);
    sessions.iter_mut().for_each(expect_open);
    expect_open(&mut { other });
    let log = server.log();
    assert_eq!(log.lines_with("session_closed | result: success | agency_id: 1").len(), 3, "{}", log.0);
    assert_eq!(log.lines_with("| reason: busy: ").len(), 2, "{}", log.0);
}

#[test]
fn a_session_that_waits_for_the_draw_is_quiet_and_its_agency_comes_back() {
    let setup = Setup::of(2).write("agency-1.csv", "Ana,Paz,30111222,1980-01-02,7574\r\n");
    let server = setup.start();
    let mut agency = Agency::start(&setup.path(""), 1, &server.address(), &[("CLI_LOG_LEVEL", "DEBUG")]);
    server.wait_for("end_message | result: success | agency_id: 1");
    let mut others = Vec::new();
    for round in 1..4 {
        agency.await_log("action: open_session | result: success", round);
        // Behind its AWAIT_RESULT.
        std::thread::sleep(Duration::from_millis(50));
        others.extend(four_sessions(&server));
        agency.await_log("error: the server says: busy: ", round);
    }
    server.connect().classic_end(2);
    agency.succeed();
}

/// Storage is stopped until all messages are in its queue, so that it takes them as one group.
#[test]
fn bets_in_the_hand_of_storage_are_acknowledged_before_their_session_is_replaced() {
    let server = server_of(2);
    let mut sessions = four_sessions(&server);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    for (index, session) in (0..).zip(&mut sessions) {
        session.send_bets(index, &bets(1, 0..4)[usize::try_from(index).unwrap()..][..1]);
        std::thread::sleep(Duration::from_millis(150));
    }
    let mut fifth = server.connect();
    fifth.send(&open_frame(1, 1));
    std::thread::sleep(Duration::from_millis(150));
    processes::send(storage, Signal::SIGCONT);
    assert_eq!(fifth.read_frame().0, kind::SESSION_OPENED);
    for session in &mut sessions {
        assert_eq!(session.read_frame().0, kind::SESSION_STORED);
    }
    expect_replaced(&mut sessions.remove(0));
    sessions.iter_mut().for_each(expect_open);
    assert_eq!(server.bets_file(), rows(&bets(1, 0..4)));
}

/// The session has so many batches in flight that some are in its socket, some in its handler and some in the queue. All
/// that were acknowledged are stored, and the others can be sent again.
#[test]
fn batches_in_flight_behind_the_end_of_a_replaced_session_are_not_stored() {
    let server = server_of(2);
    let all = bets(1, 0..20_000);
    for round in 0..3 {
        let (mut client, opened) = server.session(1);
        let first = usize::try_from(opened.stored).unwrap();
        let rest = all[first..].chunks(50).take(80).enumerate();
        let frames: Vec<u8> =
            rest.flat_map(|(index, batch)| bets_frame((first + 50 * index) as u64, batch)).collect();
        client.send(&frames);
        let fillers: Vec<Client> = (0..round).map(|_| server.session(1).0).collect();
        let mut acknowledged = opened.stored;
        loop {
            match client.try_read_frame() {
                Ok((kind::SESSION_STORED, payload)) => {
                    acknowledged = u64::from_be_bytes(payload.try_into().unwrap());
                }
                Ok((kind::ERROR, reason)) => {
                    assert!(reason.starts_with(b"busy: "), "{}", String::from_utf8_lossy(&reason));
                    break;
                }
                other => panic!("{other:?}"),
            }
            if acknowledged == (first + 4000).min(20_000) as u64 {
                break;
            }
            if acknowledged > opened.stored {
                // Other sessions of the agency, until this one is replaced.
                drop(four_sessions(&server));
            }
        }
        drop(client);
        drop(fillers);
        server.wait_for_handlers(0);
        assert_eq!(server.session(1).1.stored, acknowledged);
    }
    let stored = usize::try_from(server.session(1).1.stored).unwrap();
    assert!(server.bets_file() == rows(&all[..stored]));
}

#[test]
fn within_a_result_a_replaced_session_is_closed_without_a_message() {
    let server = server_of(1);
    let (mut session, _) = server.session(1);
    let documents: Vec<Bet> = vec![winner(1, &"7".repeat(200)); 40_000];
    session.store(0, &documents);
    session.end_agency();
    drop(session);
    let (mut reader, _) = server.session(1);
    reader.send_frame(kind::RESULT_REQUEST, b"");
    let mut header = [0; 5];
    reader.stream.read_exact(&mut header).unwrap();
    assert_eq!(header, [&[kind::RESULT], &(201 * 40_000_u32 - 1).to_be_bytes()[..]].concat()[..]);
    server.wait_for_handlers(1);
    until("the sockets are full, and the handler waits for its client", || are_idle(&server.handlers()));
    let others = four_sessions(&server);
    let mut payload = Vec::new();
    // A reset is fine.
    reader.stream.read_to_end(&mut payload).ok();
    assert!(payload.len() < 201 * 40_000 - 1, "the whole result");
    assert!(payload.iter().all(|byte| matches!(byte, b'7' | 0x1e)), "another message within the result");
    drop(others);
}

/// The build before let the first 64 of them keep everyone else out for good.
#[test]
fn many_sessions_of_one_agency_take_four_places_and_harm_nobody() {
    let server = Setup::of(2).with("MAX_CLIENTS", 64).start();
    let before = usage_of(&server);
    let mut honest = Honest::new(&server, 1);
    let mut sessions = Vec::new();
    for round in 0..200 {
        let mut client = server.connect();
        client.send(&open_frame(1, 2));
        sessions.push(client);
        if round % 20 == 0 {
            honest.take_turn(&server);
            common::status(server.port());
        }
    }
    server.wait_for_handlers(5);
    honest.is_served_at_once(&server);
    let alive = sessions.iter_mut().filter_map(|client| {
        assert_eq!(client.read_frame().0, kind::SESSION_OPENED);
        client.send_frame(kind::RESULT_REQUEST, b"");
        client.try_read_frame().ok().filter(|(kind, _)| *kind == kind::IN_PROGRESS)
    });
    assert_eq!(alive.count(), 4);
    drop(sessions);
    honest.leave(&server);
    assert_nothing_left(&server, before);
}

#[test]
fn sessions_of_one_agency_that_open_within_one_group_are_all_answered() {
    let server = server_of(2);
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let mut clients: Vec<Client> = (0..9).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&[open_frame(1, 1), frame(kind::END, b"")].concat());
    }
    std::thread::sleep(Duration::from_millis(100));
    processes::send(storage, Signal::SIGCONT);
    let mut ended = 0;
    for client in &mut clients {
        assert_eq!(client.read_frame().0, kind::SESSION_OPENED);
        match client.read_frame() {
            (kind::BET_ACK, _) => ended += 1,
            (kind::ERROR, reason) => assert!(reason.starts_with(b"busy: ")),
            other => panic!("{other:?}"),
        }
    }
    assert!(ended >= 4, "{ended}");
    until("four are left", || server.handlers().len() == 4);
}

/// If the server closed the connection with unread frames, the kernel would reset it, and the message could be lost.
#[test]
fn a_replaced_session_with_unread_frames_is_told_and_closed_in_order() {
    let server = server_of(2);
    for _ in 0..5 {
        let (mut session, _) = server.session(1);
        session.send(
            &[frame(kind::AWAIT_RESULT, b""), frame(kind::RESULT_REQUEST, b"").repeat(60_000)].concat(),
        );
        std::thread::sleep(Duration::from_millis(20));
        let others = four_sessions(&server);
        std::thread::sleep(Duration::from_millis(20));
        expect_replaced(&mut session);
        drop(others);
    }
}
