//! `loteria status --watch`: asks a server for its status again and again. On a terminal it draws a live view, elsewhere it
//! writes lines.
//!
//! Three threads ask the server, read keys and wait for signals, and send each input to the main thread. So neither a slow
//! answer nor an incomplete key sequence delays another input. The terminal is restored on q, Ctrl-C, signals and a panic.

mod agencies;
mod events;
mod history;
mod lines;
mod rendering;
mod view;

use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Local;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event as keys;

use self::agencies::ListState;
use self::history::History;
use self::lines::Lines;
use self::rendering::remove_colours;
use super::ask::{DEADLINE, ask};
use crate::failpoint::error_point;
use crate::protocol::status::Status;
use crate::system::signal::wait_for_termination;
use crate::tls::client::Target;

/// The time between two requests. After a slow answer the pause is four times as long, to spare the server.
const EVERY: Duration = Duration::from_millis(500);
/// The view is redrawn this often even without an input, because it shows a clock.
const REDRAW: Duration = Duration::from_secs(1);

/// What a thread sends to the main thread.
#[expect(clippy::large_enum_variant, reason = "few wait at a time")]
enum Input {
    /// The status, or why there is none.
    Answer(Result<Status, String>),
    /// A key, or a new size of the terminal.
    Terminal(keys::Event),
    /// A signal asks to end, or the terminal can't be read.
    End(io::Result<()>),
}

/// Watches a server. SIGTERM and SIGINT must be blocked.
pub(crate) fn run(server: &Target) -> io::Result<()> {
    let (sender, inputs) = channel();
    spawn(&sender, || Input::End(wait_for_termination().map(drop)))?;
    spawn(&sender, poll_server(server.clone()))?;
    let mut history = History::new(&server.address);
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return show(&mut history, &sender, &inputs);
    }
    match write_lines(&mut history, &inputs) {
        // The reader of a pipe has closed it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Starts a thread that waits for inputs and sends them.
fn spawn(inputs: &Sender<Input>, mut next: impl FnMut() -> Input + Send + 'static) -> io::Result<()> {
    let inputs = inputs.clone();
    thread::Builder::new().spawn(move || while inputs.send(next()).is_ok() {})?;
    Ok(())
}

/// Returns a function that waits until the next request is due, and asks the server.
fn poll_server(server: Target) -> impl FnMut() -> Input {
    let mut pause = Duration::ZERO;
    move || {
        thread::sleep(pause);
        let begun = Instant::now();
        let answer = ask(&server, DEADLINE).map_err(|error| error.to_string());
        let took = begun.elapsed();
        pause = EVERY.saturating_sub(took).max(took * 4).min(10 * DEADLINE);
        Input::Answer(answer)
    }
}

fn write_lines(history: &mut History, inputs: &Receiver<Input>) -> io::Result<()> {
    let mut lines = Lines::default();
    for input in inputs {
        match input {
            Input::Answer(answer) => {
                let now = Local::now();
                let events = history.add(now, answer);
                io::stdout().write_all(lines.describe(history, &events, now).as_bytes())?;
            }
            Input::Terminal(_) => {}
            Input::End(result) => return result,
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

fn show(history: &mut History, sender: &Sender<Input>, inputs: &Receiver<Input>) -> io::Result<()> {
    let has_colours = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::enter()?;
    spawn(sender, || keys::read().map_or_else(|error| Input::End(Err(error)), Input::Terminal))?;
    let mut list = ListState::default();
    loop {
        error_point("watch_draws")?;
        screen.0.draw(|frame| {
            view::render(frame, history, &mut list, Local::now());
            if !has_colours {
                remove_colours(frame);
            }
        })?;
        let first = inputs.recv_timeout(REDRAW).ok();
        for input in first.into_iter().chain(inputs.try_iter()) {
            match input {
                Input::Answer(answer) => drop(history.add(Local::now(), answer)),
                Input::Terminal(event) if event.as_key_press_event().is_some_and(|key| list.press(key)) => {
                    return Ok(());
                }
                Input::Terminal(_) => {}
                Input::End(result) => return result,
            }
        }
    }
}
