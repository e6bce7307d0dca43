//! The agency on a terminal: a bar is below the log while it works, and only the log stays.

use common::stage::{Stage, rows};
use common::terminal::OnTerminal;
use common::{Log, await_some, kind};
use nix::sys::signal::Signal;

/// Waits for the agency's end. The screen must then show only its log. Returns the exit code and the lines.
fn end(agency: OnTerminal) -> (Option<i32>, Vec<String>) {
    let left = agency.end();
    Log(format!("{}\n", left.screen.trim_end())).assert_well_formed();
    (left.code, left.screen.lines().map(str::to_owned).collect())
}

/// Waits until the lowest line contains this text. Returns the line.
fn await_bar(agency: &OnTerminal, text: &str) -> String {
    await_some(text, || agency.screen().lines().last().filter(|line| line.contains(text)).map(str::to_owned))
}

#[test]
fn on_a_terminal_a_bar_is_below_the_log_and_disappears_at_the_end() {
    let stage = Stage::new(&rows(1000));
    let agency = stage.agency_on_terminal(&[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for batch in 1..=5 {
        peer.bets();
        peer.acknowledge(batch * 10);
    }
    let bar = await_bar(&agency, "50 of about ");
    let expected: u64 = bar
        .split_whitespace()
        .skip_while(|word| *word != "about")
        .nth(1)
        .unwrap()
        .replace(',', "")
        .parse()
        .unwrap();
    assert!((950..=1100).contains(&expected) && bar.contains(" bets/s"), "{bar}");
    drop(peer);
    let mut peer = stage.accept_session(70, 0, 1 << 20);
    let bar = await_bar(&agency, " 70 of ");
    assert!(bar.contains("reconnections: 1"), "{bar}");
    let mut stored = 70;
    while stored < 990 {
        stored += peer.bets().1.len() as u64;
        peer.acknowledge(stored);
    }
    let bar = await_bar(&agency, "990 of 1,000 bets");
    assert!(!bar.contains("about"), "{bar}");
    peer.bets();
    peer.acknowledge(1000);
    peer.end(1000);
    await_bar(&agency, "1,000 bets sent, waiting for the draw");
    peer.give_result(b"1\x1e2");
    let (code, lines) = end(agency);
    assert_eq!(code, Some(0));
    assert_eq!(lines.iter().filter(|line| line.contains("apuesta_enviada")).count(), 1, "{lines:#?}");
    assert!(lines.last().unwrap().contains("cant_ganadores: 2 | "), "{lines:#?}");
}

#[test]
fn on_a_terminal_classic_mode_shows_a_bar_too() {
    let stage = Stage::new(&rows(20));
    let agency = stage.agency_on_terminal(&[("CLI_PROTOCOL", "classic"), ("CLI_LOOP_PERIOD", "20ms")]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::BET_ACK, b"OK");
    await_bar(&agency, "10 of about 20 bets");
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::BET_ACK, b"OK");
    assert_eq!(stage.accept().frame(), Some((kind::END, vec![3])));
    let mut peer = stage.accept();
    peer.frame().unwrap();
    await_bar(&agency, "20 bets sent, waiting for the draw");
    peer.send(kind::RESULT, b"");
    assert_eq!(end(agency).0, Some(0));
}

#[test]
fn on_a_terminal_a_signal_or_an_error_leaves_nothing_but_the_log() {
    let stage = Stage::new(&rows(10));
    let agency = stage.agency_on_terminal(&[]);
    let mut peer = stage.accept_session(10, 1, 1 << 20);
    assert_eq!(peer.frame(), Some((kind::AWAIT_RESULT, vec![])));
    await_bar(&agency, "10 bets sent, waiting for the draw");
    agency.process.signal(Signal::SIGINT);
    let (code, lines) = end(agency);
    assert_eq!((code, lines.len()), (Some(0), 3), "{lines:#?}");
    assert!(lines[2].contains("action: shutdown | result: success | signal: SIGINT"), "{lines:#?}");

    let agency = stage.agency_on_terminal(&[]);
    for _ in 0..2 {
        let mut peer = stage.accept();
        await_bar(&agency, "connecting");
        peer.frame().unwrap();
        peer.send(kind::ERROR, b"agency 3 does not exist");
    }
    let (code, lines) = end(agency);
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
}

#[test]
fn on_a_terminal_a_bar_shows_the_comparison_of_many_stored_bets() {
    let stage = Stage::new(&rows(300_000));
    let agency = stage.agency_on_terminal(&[]);
    let mut peer = stage.accept_session(300_000, 1, 1 << 20);
    await_bar(&agency, "0,000 of 300,000 stored bets compared with the file");
    peer.give_result(b"");
    assert_eq!(end(agency).0, Some(0));
}
