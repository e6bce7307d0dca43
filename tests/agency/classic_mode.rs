//! The agency's classic mode: as in the original, messages of at most 8 kB, a connection for each, and polling.

use std::time::Duration;

use common::agencies::Agency;
use common::original::{OnUnknown, OriginalServer};
use common::stage::{Stage, documents, rows};
use common::{kind, processes, server_of, until};
use nix::sys::signal::Signal;

#[test]
fn classic_mode_sends_packets_of_at_most_8_kb_and_polls() {
    let stage = Stage::new(&rows(1000));
    let variables =
        [("CLI_PROTOCOL", "classic"), ("CLI_LOOP_PERIOD", "20ms"), ("CLI_BATCH_MAXAMOUNT", "500")];
    let mut agency = stage.agency(&variables);
    let mut stored = 0;
    while stored < 1000 {
        let mut peer = stage.accept();
        let (kind, payload) = peer.frame().unwrap();
        assert!(kind == kind::MULTIPLE_BETS && payload.len() + 5 <= 8192, "{}", payload.len());
        for document in documents(&payload) {
            assert_eq!(document, stored.to_string());
            stored += 1;
        }
        peer.send(kind::BET_ACK, b"OK");
    }
    assert_eq!(stage.accept().frame(), Some((kind::END, vec![3])));
    for _ in 0..2 {
        let mut peer = stage.accept();
        assert_eq!(peer.frame(), Some((kind::RESULT_REQUEST, vec![3])));
        peer.send(kind::IN_PROGRESS, b"");
    }
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::RESULT, b"1\x1e2");
    let log = agency.succeed();
    assert!(log.has("consulta_ganadores | result: success | cant_ganadores: 2"), "{}", log.0);
    assert!(log.0.contains("action: apuesta_enviada | result: success | cantidad: "), "{}", log.0);
}

#[test]
fn a_limit_in_bytes_replaces_the_8_kb_of_classic_mode() {
    for (limit, sizes) in [("300", 200..=300), ("20000", 8193..=20_000)] {
        let stage = Stage::new(&rows(1000));
        let variables =
            [("CLI_PROTOCOL", "classic"), ("CLI_BATCH_MAXAMOUNT", "1000"), ("CLI_BATCH_MAXBYTES", limit)];
        let _agency = stage.agency(&variables);
        let (_, payload) = stage.accept().frame().unwrap();
        assert!(sizes.contains(&(payload.len() + 5)), "{}", payload.len());
    }
}

#[test]
fn classic_mode_does_not_send_again_what_may_be_stored() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[("CLI_PROTOCOL", "classic")]);
    stage.accept().frame().unwrap();
    let line = agency.fail();
    assert!(line.contains("lines 1 to 10") && line.contains("is not known"), "{line}");
}

#[test]
fn classic_mode_sends_again_what_is_known_not_to_be_stored() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[("CLI_PROTOCOL", "classic")]);
    let mut peer = stage.accept();
    let sent = peer.frame();
    peer.send(kind::ERROR, b"busy");
    drop(peer);
    let mut peer = stage.accept();
    assert_eq!(peer.frame(), sent);
    peer.send(kind::ERROR, b"bet 3: no");
    assert!(agency.fail().contains("bet 3: no"));
}

#[test]
fn classic_mode_refuses_agencies_above_255() {
    let stage = Stage::new("");
    let variables = [("CLI_PROTOCOL", "classic"), ("CLI_ID", "256"), ("CLI_BETS_FILE", "agency-3.csv")];
    assert!(stage.agency(&variables).fail().contains("not 256"));
}

#[test]
fn an_end_that_is_lost_with_storage_is_sent_again() {
    let server = server_of(1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agency-1.csv"), "").unwrap();
    let storage = server.storage();
    processes::send(storage, Signal::SIGSTOP);
    let address = format!("127.0.0.1:{}", server.port());
    let variables = [("CLI_PROTOCOL", "classic"), ("CLI_LOOP_PERIOD", "20ms")];
    let mut agency = Agency::start(folder.path(), 1, &address, &variables);
    until("the server has accepted the connection", || {
        !server.log().lines_with("action: accept_connections").is_empty()
    });
    processes::send(storage, Signal::SIGKILL);
    agency.succeed();
    assert_eq!(
        server.log().lines_with("action: end_message | result: success").len(),
        1,
        "the first one was lost"
    );
}

#[test]
fn classic_mode_sends_again_what_could_not_be_stored() {
    let stage = Stage::new(&rows(10));
    let mut agency = stage.agency(&[("CLI_PROTOCOL", "classic")]);
    let mut peer = stage.accept();
    let sent = peer.frame();
    for _ in 0..3 {
        peer.send(kind::ERROR, b"could not be stored: No space left on device");
        peer = stage.accept();
        assert_eq!(peer.frame(), sent);
    }
    peer.send(kind::BET_ACK, b"OK");
    assert_eq!(stage.accept().frame(), Some((kind::END, vec![3])));
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::RESULT, b"");
    let log = agency.succeed();
    let warnings = log.lines_of("WARNING");
    assert!(warnings.len() == 1 && warnings[0].contains("could not be stored: No space left"), "{}", log.0);
}

#[test]
fn a_contest_against_the_original_server_ends_soon_after_the_last_end() {
    let server = OriginalServer::start(5, OnUnknown::KeepOpen);
    let folder = tempfile::tempdir().unwrap();
    let start = |agency| {
        std::fs::write(folder.path().join(format!("agency-{agency}.csv")), rows(300)).unwrap();
        let variables = [("CLI_PROTOCOL", "classic"), ("CLI_BATCH_MAXAMOUNT", "100")];
        Agency::start(folder.path(), agency, &server.address, &variables)
    };
    let mut agencies: Vec<Agency> = (1..=5).map(start).collect();
    for agency in &mut agencies {
        assert!(agency.succeed().has("consulta_ganadores | result: success | cant_ganadores: 300"));
    }
    let took = server.last_end().elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    for agency in 1..=5 {
        assert_eq!(server.bets_of(agency), 300);
    }
}
