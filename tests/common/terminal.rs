//! The program on a pseudo-terminal. The test reads its screen and types.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{Termios, tcgetattr};

use super::await_some;
use super::program::{Running, output, text};

/// A program whose input and outputs are a terminal.
#[derive(Debug)]
pub struct OnTerminal {
    pub process: Running,
    keyboard: File,
    /// The program's side. It stays open, so that its mode can be read after the program has ended.
    terminal: File,
    before: Termios,
    written: Arc<Mutex<Vec<u8>>>,
    /// Reads all the time: a program blocks when nobody reads its terminal.
    reader: JoinHandle<()>,
}

/// How the program ended, and the terminal that it left.
#[derive(Debug)]
pub struct Left {
    pub code: Option<i32>,
    /// All bytes that it wrote.
    pub written: String,
    /// The text on the screen.
    pub screen: String,
    pub mode_is_as_before: bool,
}

/// Larger than the screen of any test, so that no line is scrolled away.
const LARGEST: (u16, u16) = (1000, 200);

impl OnTerminal {
    /// Starts it on a terminal with this number of rows and columns.
    pub fn start(mut command: Command, size: (u16, u16)) -> Self {
        let (mut screen, terminal) = open();
        resize(&terminal, size);
        let end = || Stdio::from(terminal.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let before = tcgetattr(&terminal).unwrap();
        let keyboard = File::from(screen.as_fd().try_clone_to_owned().unwrap());
        let written = Arc::new(Mutex::new(Vec::new()));
        let on = written.clone();
        let reader = Builder::new().spawn(move || {
            let mut bytes = [0; 4096];
            // When the other side is closed, reading returns an error, not an end of file.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                on.lock().unwrap().extend(&bytes[..count]);
            }
        });
        let process = Running::start(&mut command);
        Self { process, keyboard, terminal, before, written, reader: reader.unwrap() }
    }

    /// The text on the screen now.
    pub fn screen(&self) -> String {
        let [rows, columns] = [LARGEST.0, LARGEST.1].map(|side| NonZero::new(side).unwrap());
        let mut screen = vt100::Parser::new(rows, columns, 0);
        screen.process(&self.written.lock().unwrap());
        screen.screen().contents()
    }

    /// Waits until a line contains this text. Returns the line.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let line = |screen: String| screen.lines().find(|line| line.contains(text)).map(str::to_owned);
        await_some(&format!("the terminal shows {text}"), || line(self.screen()))
    }

    pub fn type_in(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Gives the terminal this number of rows and columns.
    pub fn resize(&self, size: (u16, u16)) {
        resize(&self.terminal, size);
    }

    pub fn mode(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Left {
        let code = self.process.end().code();
        let mode_is_as_before = self.mode() == self.before;
        // This closes the last descriptor of that side, which ends the reader.
        self.terminal = File::open("/dev/null").unwrap();
        await_some("the end of the terminal", || self.reader.is_finished().then_some(()));
        let written = String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
        Left { code, written, screen: self.screen(), mode_is_as_before }
    }
}

/// Opens both sides of a new terminal. `openpty` would let the processes of other tests inherit them.
fn open() -> (PtyMaster, File) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
    let terminal = options.open(ptsname_r(&master).unwrap()).unwrap();
    (master, terminal)
}

fn resize(terminal: &File, (rows, columns): (u16, u16)) {
    let (rows, columns) = (rows.to_string(), columns.to_string());
    let mut stty = Command::new("stty");
    let resized = output(stty.args(["rows", &rows, "cols", &columns]).stdin(terminal.try_clone().unwrap()));
    assert!(resized.status.success(), "{}", text(&resized.stderr));
}
