//! A server that one test has for itself: its processes, its log and its end.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::client::{Client, Opened};
use super::program::{PROGRAM, Running};
use super::{Log, Setup, await_some, processes, until};

/// How a server ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub log: Log,
}

impl Ended {
    /// The only line that reports a failure.
    pub fn failure(&self) -> String {
        let lines = self.log.lines_with(" | result: fail");
        assert_eq!(lines.len(), 1, "{}", self.log.0);
        lines[0].to_owned()
    }
}

/// A started server. When it goes out of scope, it must end on SIGTERM, leave no process behind, and have written a log
/// without a panic that keeps to the grammar.
#[derive(Debug)]
pub struct RunningServer {
    pub(crate) setup: Setup,
    pub(crate) process: Running,
    pub(crate) log_path: PathBuf,
    pub(crate) port: u16,
    pub(crate) slot: Option<Slot>,
}

impl RunningServer {
    /// Its setup, with which another server can be started in the same folder.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as an argument of the program.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process ID of the acceptor.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> Log {
        Log(String::from_utf8(fs::read(&self.log_path).unwrap()).expect("a log in UTF-8"))
    }

    /// Waits until a line of level INFO has exactly this event.
    pub fn wait_for(&self, event: &str) {
        until(event, || self.log().has(event));
    }

    /// Waits until it has logged its configuration.
    pub fn wait_for_config(&self) {
        until("the configuration is logged", || !self.log().lines_with("action: config").is_empty());
    }

    /// The content of the bets file.
    pub fn bets_file(&self) -> Vec<u8> {
        self.setup.bets_file()
    }

    /// Opens a connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    /// Opens a connection and a session on it.
    pub fn session(&self, agency: u32) -> (Client, Opened) {
        let mut client = self.connect();
        let opened = client.open_session(agency);
        (client, opened)
    }

    /// Its living processes.
    pub fn processes(&self) -> Vec<i32> {
        processes::in_group(self.pid())
    }

    /// The process ID of the storage service: the child that has the bets file open.
    pub fn storage(&self) -> i32 {
        let path = self.setup.bets_path();
        let mut found = None;
        until("a storage service lives", || {
            let children = processes::children_of(self.pid());
            found = children.into_iter().find(|pid| processes::has_open(*pid, &path));
            found.is_some()
        });
        found.unwrap()
    }

    /// The process IDs of the handlers.
    pub fn handlers(&self) -> Vec<i32> {
        let others = [Some(self.storage()), self.setup.has("TLS_DIR").then(|| self.keeper())];
        processes::children_of(self.pid()).into_iter().filter(|pid| !others.contains(&Some(*pid))).collect()
    }

    /// The process ID of the keeper: the child that has neither the bets file nor a reply pipe.
    pub fn keeper(&self) -> i32 {
        let storage = self.storage();
        await_some("a keeper lives", || {
            let others = processes::children_of(self.pid()).into_iter().filter(|pid| *pid != storage);
            let mut keepers = others.filter(|pid| {
                let descriptors = processes::descriptors(*pid);
                !descriptors.is_empty() && !descriptors.values().any(|target| target.starts_with("pipe:"))
            });
            keepers.next()
        })
    }

    /// Waits until its log contains this text.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        until(text, || self.log().0.contains(text));
    }

    /// Waits until exactly this many handlers live.
    pub fn wait_for_handlers(&self, count: usize) {
        until(&format!("{count} handlers live"), || self.handlers().len() == count);
    }

    /// Sends a signal to the acceptor.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ended. None if it still runs.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.process.end();
        self.slot = None;
        status
    }

    /// Sends the acceptor a signal and waits for its end. Returns how it ended and how long it took.
    pub fn stop(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(signal);
        (self.wait(), start.elapsed())
    }

    /// Sends SIGTERM. The server must end with exit code 0.
    pub fn terminate(&mut self) {
        let (status, _) = self.stop(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0), "{status}");
    }

    /// Kills the acceptor and waits until all its children have ended.
    pub fn kill9(&mut self) {
        self.stop(Signal::SIGKILL);
        until("no process is left", || self.processes().is_empty());
    }

    fn show(&self) {
        eprintln!("--- {} server {:?}", *PROGRAM, self.setup.settings);
        eprintln!("{}--- end of its log", self.log().0);
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        } else if self.try_wait().is_none() {
            self.signal(Signal::SIGTERM);
            self.process.wait();
        }
        let has_ended = self.try_wait().is_some();
        let left = if has_ended { self.processes() } else { Vec::new() };
        processes::kill_group(self.pid());
        if !std::thread::panicking() {
            let check = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert!(has_ended, "the server did not end on SIGTERM");
                assert!(left.is_empty(), "processes were left: {left:?}");
                self.log().assert_well_formed();
                let on_purpose =
                    self.setup.settings.get("FAILPOINTS").is_some_and(|points| points.contains("panic"));
                assert!(
                    on_purpose || self.log().lines_with("action: panic").is_empty(),
                    "a process panicked"
                );
            }));
            if let Err(reason) = check {
                self.show();
                std::panic::resume_unwind(reason);
            }
        }
    }
}

/// A free port that stays free while its server is down: it is below the range from which the kernel chooses the ports of
/// outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let lowest: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
    loop {
        let offset = std::process::id() * 37 + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = u16::try_from(2000 + offset % (lowest - 2000)).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The right to run one server as the user that runs the tests. `RLIMIT_MSGQUEUE` has room for nine queues of the usual
/// size for each user, so not too many servers may run at the same time.
#[derive(Debug)]
pub(crate) struct Slot;

static SLOTS: (Mutex<usize>, Condvar) = (Mutex::new(5), Condvar::new());

impl Slot {
    pub(crate) fn take() -> Self {
        let free = SLOTS.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = SLOTS.1.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *SLOTS.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        SLOTS.1.notify_one();
    }
}
