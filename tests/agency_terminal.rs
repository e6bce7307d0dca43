//! The agency on a terminal: a bar stands below the log while it works, and nothing but the log stays.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod common;

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use common::stage::{Agency, Stage, rows};
use common::{await_some, kind, processes};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;

/// An agency whose standard error is a terminal, high enough that nothing leaves it at the top.
struct OnTerminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl OnTerminal {
    fn start(stage: &Stage, variables: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 400, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let address = stage.listener.local_addr().unwrap().to_string();
        let mut command = Agency::command(stage.folder.path(), &address, variables);
        let child = command.env("TERM", "xterm").stderr(pty.slave).spawn().unwrap();
        // With the command goes this process's last descriptor of the terminal's other side.
        drop(command);
        let [rows, columns] = [size.ws_row, size.ws_col].map(|side| NonZero::new(side).unwrap());
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut terminal, on) = (File::from(pty.master), screen.clone());
        let reader = Builder::new().spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = terminal.read(&mut bytes) {
                on.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, screen, reader: reader.ok() }
    }

    /// What stands on the terminal now.
    fn lines(&self) -> Vec<String> {
        self.screen.lock().unwrap().screen().contents().lines().map(str::to_owned).collect()
    }

    /// Waits until the lowest line holds that text, and gives it.
    fn await_bar(&self, text: &str) -> String {
        await_some(text, || self.lines().pop().filter(|line| line.contains(text)))
    }

    /// Waits for its end: the exit code, and what it leaves on the terminal, of which every line must be the log's.
    fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = await_some("the end of the agency", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        let lines = self.lines();
        for line in &lines {
            let (time, rest) = line.split_at(20);
            assert!(time.starts_with("20") && time.ends_with(' '), "{line}");
            assert!(rest.contains(" action: ") && rest.contains(" | result: "), "{line}");
        }
        (status.code(), lines)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn on_a_terminal_a_bar_stands_below_the_log_and_is_gone_at_the_end() {
    let stage = Stage::new(&rows(1000));
    let agency = OnTerminal::start(&stage, &[]);
    let mut peer = stage.accept_session(0, 0, 1 << 20);
    for batch in 1..=5 {
        peer.bets();
        peer.acknowledge(batch * 10);
    }
    let bar = agency.await_bar("50 of about ");
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
    let bar = agency.await_bar(" 70 of ");
    assert!(bar.contains("reconnections: 1"), "{bar}");
    let mut stored = 70;
    while stored < 990 {
        stored += peer.bets().1.len() as u64;
        peer.acknowledge(stored);
    }
    let bar = agency.await_bar("990 of 1,000 bets");
    assert!(!bar.contains("about"), "{bar}");
    peer.bets();
    peer.acknowledge(1000);
    assert_eq!(peer.frame(), Some((kind::END, vec![])));
    peer.send(kind::BET_ACK, b"OK");
    agency.await_bar("1,000 bets sent, waiting for the draw");
    peer.give_result(b"1\x1e2");
    let (code, lines) = agency.end();
    assert_eq!(code, Some(0));
    assert_eq!(
        lines.iter().filter(|line| line.contains("action: apuesta_enviada")).count(),
        98,
        "{lines:#?}"
    );
    assert!(lines.last().unwrap().ends_with("cant_ganadores: 2"), "{lines:#?}");
}

#[test]
fn on_a_terminal_classic_mode_shows_a_bar_too() {
    let stage = Stage::new(&rows(20));
    let agency = OnTerminal::start(&stage, &[("CLI_PROTOCOL", "classic"), ("CLI_LOOP_PERIOD", "20ms")]);
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::BET_ACK, b"OK");
    agency.await_bar("10 of about 20 bets");
    let mut peer = stage.accept();
    peer.frame().unwrap();
    peer.send(kind::BET_ACK, b"OK");
    assert_eq!(stage.accept().frame(), Some((kind::END, vec![3])));
    let mut peer = stage.accept();
    peer.frame().unwrap();
    agency.await_bar("20 bets sent, waiting for the draw");
    peer.send(kind::RESULT, b"");
    assert_eq!(agency.end().0, Some(0));
}

#[test]
fn on_a_terminal_a_signal_or_an_error_leaves_nothing_but_the_log() {
    let stage = Stage::new(&rows(10));
    let agency = OnTerminal::start(&stage, &[]);
    let mut peer = stage.accept_session(10, 1, 1 << 20);
    assert_eq!(peer.frame(), Some((kind::AWAIT_RESULT, vec![])));
    agency.await_bar("10 bets sent, waiting for the draw");
    processes::send(agency.child.id().cast_signed(), Signal::SIGINT);
    let (code, lines) = agency.end();
    assert_eq!((code, lines.len()), (Some(0), 3), "{lines:#?}");
    assert!(lines[2].ends_with("action: shutdown | result: success | signal: SIGINT"), "{lines:#?}");

    let agency = OnTerminal::start(&stage, &[]);
    let mut peer = stage.accept();
    agency.await_bar("connecting");
    peer.frame().unwrap();
    peer.send(kind::ERROR, b"agency 3 does not exist");
    let (code, lines) = agency.end();
    assert_eq!((code, lines.len()), (Some(1), 2), "{lines:#?}");
}
