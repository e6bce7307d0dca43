//! `loteria status --watch`: looks at a server again and again, until it is told to leave.
//!
//! A thread of its own asks the server, so that a key or a signal is never kept waiting by it. On a terminal there is
//! a live view; elsewhere there are lines. The terminal is left as it was found: on q, Ctrl-C, SIGTERM, and a panic.

mod agencies;
mod drawing;
mod events;
mod history;
mod lines;
mod view;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Local;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self as keys, KeyCode, KeyEventKind, KeyModifiers};

use self::drawing::Theme;
use self::history::History;
use self::lines::Lines;
use super::{DEADLINE, ask};
use crate::failpoint::error_point;
use crate::protocol::status::Status;
use crate::system::signal::{Signals, is_termination};

/// The time between two questions. Where an answer takes long, its fourfold: what is watched should not be slowed down.
const EVERY: Duration = Duration::from_millis(500);
/// How soon an answer that has come is shown.
const TICK: Duration = Duration::from_millis(100);
/// The clock of the view goes on without answers too.
const REDRAW: Duration = Duration::from_secs(1);

/// What a look at the server gave: its status, or why there is none.
type Look = Result<Status, String>;

/// Watches the server at `HOST:PORT`. SIGTERM and SIGINT must be blocked.
///
/// # Errors
/// Terminal or standard output are gone, or no thread is to be had.
pub fn run(address: &str) -> io::Result<()> {
    // Before the thread is made, which is then not in the way of the signals.
    let signals = Signals::open()?;
    let answers = ask_on_and_on(address.to_owned())?;
    let mut history = History::new(address);
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        show(&mut history, &answers, &signals)
    } else {
        match write_lines(&mut history, &answers, &signals) {
            // Whoever read the lines has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

fn ask_on_and_on(address: String) -> io::Result<Receiver<Look>> {
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        loop {
            let begun = Instant::now();
            let answer = ask(&address, begun + DEADLINE);
            if sender.send(answer.map_err(|error| error.to_string())).is_err() {
                return;
            }
            let took = begun.elapsed();
            thread::sleep(EVERY.saturating_sub(took).max(took * 4).min(10 * DEADLINE));
        }
    })?;
    Ok(receiver)
}

/// Waits for a tick, or until one of these is readable. True if a signal says that it is time to leave.
fn wait(signals: &Signals, others: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let all = others.iter().copied().chain([signals.as_fd()]);
    let mut waited: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match poll(&mut waited, PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    while let Some(signal) = signals.take()? {
        if is_termination(signal) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn next_answer(answers: &Receiver<Look>) -> io::Result<Option<Look>> {
    match answers.try_recv() {
        Ok(answer) => Ok(Some(answer)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(io::Error::other("nobody asks the server any more")),
    }
}

fn write_lines(history: &mut History, answers: &Receiver<Look>, signals: &Signals) -> io::Result<()> {
    let mut lines = Lines::default();
    while !wait(signals, &[])? {
        let now = Local::now();
        while let Some(answer) = next_answer(answers)? {
            let events = history.take(now, answer);
            let mut out = io::stdout().lock();
            lines.write(&mut out, history, &events, now)?;
            out.flush()?;
        }
    }
    Ok(())
}

/// The terminal, taken over until it is dropped.
struct Screen(DefaultTerminal);

impl Screen {
    fn take_over() -> io::Result<Self> {
        // This also has a panic give the terminal back before it says anything.
        ratatui::try_init().map(Self).inspect_err(|_| give_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        self.0.show_cursor().unwrap_or_default();
        // A panic has given it back before it said what it had to: done again, the next line would be written over that.
        if !thread::panicking() {
            give_back();
        }
    }
}

fn give_back() {
    ratatui::try_restore().unwrap_or_default();
}

fn show(history: &mut History, answers: &Receiver<Look>, signals: &Signals) -> io::Result<()> {
    let theme = Theme { colours: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let mut screen = Screen::take_over()?;
    let mut drawn: Option<Instant> = None;
    loop {
        let mut changed = drawn.is_none_or(|at| at.elapsed() >= REDRAW);
        while let Some(answer) = next_answer(answers)? {
            history.take(Local::now(), answer);
            changed = true;
        }
        if changed {
            error_point!("watch_draws");
            screen.0.draw(|frame| view::draw(frame, history, Local::now(), theme))?;
            drawn = Some(Instant::now());
        }
        if wait(signals, &[io::stdin().as_fd()])? {
            return Ok(());
        }
        match take_keys()? {
            Key::Leave => return Ok(()),
            Key::Redraw => drawn = None,
            Key::None => {}
        }
    }
}

enum Key {
    Leave,
    /// The terminal has another size.
    Redraw,
    None,
}

fn take_keys() -> io::Result<Key> {
    let mut wanted = Key::None;
    while keys::poll(Duration::ZERO)? {
        match keys::read()? {
            keys::Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q' | 'Q') => return Ok(Key::Leave),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(Key::Leave),
                _ => {}
            },
            keys::Event::Resize(..) => wanted = Key::Redraw,
            _ => {}
        }
    }
    Ok(wanted)
}
