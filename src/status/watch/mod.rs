//! `loteria status --watch`: asks a server for its status again and again. On a terminal it draws a live view, elsewhere it
//! writes lines.
//!
//! A thread asks the server and another reads keys, so that neither a slow answer nor a key of which only a part has come
//! delays anything else. The terminal is restored on q, Ctrl-C, signals and a panic.

mod agencies;
mod events;
mod history;
mod lines;
mod list;
mod rendering;
mod view;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Local;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event as keys;

use self::history::History;
use self::lines::Lines;
use self::list::ListState;
use self::rendering::remove_colours;
use super::ask::{DEADLINE, ask};
use crate::failpoint::error_point;
use crate::protocol::status::Status;
use crate::system::signal::{Signals, is_termination};
use crate::tls::client::Target;

/// The time between two requests. After a slow answer the pause is four times as long, to spare the server.
const EVERY: Duration = Duration::from_millis(500);
/// How often the main thread looks whether an answer has come.
const TICK: Duration = Duration::from_millis(100);
/// The view is redrawn this often even without an answer, because it shows a clock.
const REDRAW: Duration = Duration::from_secs(1);

/// The status, or why there is none.
type Answer = Result<Status, String>;

/// Watches a server. SIGTERM and SIGINT must be blocked.
pub(crate) fn run(server: &Target) -> io::Result<()> {
    let signals = Signals::open()?;
    let answers = poll_server(server.clone())?;
    let mut history = History::new(&server.address);
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        show(&mut history, &answers, &signals)
    } else {
        match write_lines(&mut history, &answers, &signals) {
            // The reader of a pipe has closed it.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

fn poll_server(server: Target) -> io::Result<Receiver<Answer>> {
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        loop {
            let begun = Instant::now();
            let answer = ask(&server, DEADLINE).map_err(|error| error.to_string());
            if sender.send(answer).is_err() {
                return;
            }
            let took = begun.elapsed();
            thread::sleep(EVERY.saturating_sub(took).max(took * 4).min(10 * DEADLINE));
        }
    })?;
    Ok(receiver)
}

/// Reads keys. Before a key or sequence is whole, the library waits for the rest of it.
fn read_keys() -> io::Result<Receiver<io::Result<keys::Event>>> {
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        loop {
            let event = keys::read();
            let is_last = event.is_err();
            if sender.send(event).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Waits for a tick or a signal. Returns whether a signal asks to end.
fn wait(signals: &Signals, tick: Duration) -> io::Result<bool> {
    let mut waited = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut waited, PollTimeout::try_from(tick).unwrap_or(PollTimeout::ZERO)) {
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

fn next_answer(answers: &Receiver<Answer>) -> io::Result<Option<Answer>> {
    match answers.try_recv() {
        Ok(answer) => Ok(Some(answer)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(io::Error::other("the thread that asks the server has ended")),
    }
}

fn write_lines(history: &mut History, answers: &Receiver<Answer>, signals: &Signals) -> io::Result<()> {
    let mut lines = Lines::default();
    while !wait(signals, TICK)? {
        let now = Local::now();
        while let Some(answer) = next_answer(answers)? {
            let events = history.add(now, answer);
            let mut out = io::stdout().lock();
            lines.write(&mut out, history, &events, now)?;
            out.flush()?;
        }
    }
    Ok(())
}

/// The terminal in raw mode on its alternate screen, until this is dropped. The library's own drop would print an error, and
/// panic if the terminal is gone.
struct Screen(ManuallyDrop<DefaultTerminal>);

impl Screen {
    fn enter() -> io::Result<Self> {
        // This also sets a panic hook, which restores the terminal before it prints the panic.
        ratatui::try_init().map(ManuallyDrop::new).map(Self).inspect_err(|_| restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore.
        self.0.show_cursor().unwrap_or_default();
        // After a panic the hook has restored it. A second time would overwrite the panic's message.
        if !thread::panicking() {
            restore();
        }
    }
}

fn restore() {
    ratatui::try_restore().unwrap_or_default();
}

fn show(history: &mut History, answers: &Receiver<Answer>, signals: &Signals) -> io::Result<()> {
    let has_colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::enter()?;
    let keys = read_keys()?;
    let mut list = ListState::default();
    let mut drawn: Option<Instant> = None;
    loop {
        let mut changed = drawn.is_none_or(|at| at.elapsed() >= REDRAW);
        while let Some(answer) = next_answer(answers)? {
            history.add(Local::now(), answer);
            changed = true;
        }
        if changed {
            error_point!("watch_draws");
            screen.0.draw(|frame| {
                view::render(frame, history, &mut list, Local::now());
                if !has_colours {
                    remove_colours(frame);
                }
            })?;
            drawn = Some(Instant::now());
        }
        let mut read = keys.recv_timeout(TICK).ok();
        while let Some(event) = read {
            // Shows what the key has changed, or follows the size of the terminal.
            drawn = None;
            if event?.as_key_press_event().is_some_and(|key| list.press(key)) {
                return Ok(());
            }
            read = keys.try_recv().ok();
        }
        if wait(signals, Duration::ZERO)? {
            return Ok(());
        }
    }
}
