//! A server that one test has for itself: its settings, folder, processes and log.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::client::{Client, Opened, kind};
use super::program::{PROGRAM, Running, output};
use super::{Log, processes, until};

/// Sets a limit. The option for the number of a user's processes is `-u` in bash and `-p` in dash.
const LIMIT: &str = r#"limit() { ulimit "-$1" "$2" 2>/dev/null || { [ "$1" = u ] && ulimit -p "$2"; }; };"#;

/// How to start a server, and its folder. The folder is removed with the last setup that uses it.
#[derive(Debug, Clone)]
pub struct Setup {
    folder: Arc<TempDir>,
    settings: BTreeMap<&'static str, String>,
    limits: Vec<(&'static str, u64)>,
    user: Option<u32>,
    program: PathBuf,
    /// A command that gets the server's command as its arguments and executes it.
    wrapper: Vec<String>,
}

impl Setup {
    /// A server on a free port of this machine, in an empty folder, with level DEBUG. All other settings have their defaults.
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("loteria-test-").tempdir().unwrap());
        let (program, wrapper) = (PathBuf::from(&*PROGRAM), Vec::new());
        let setup =
            Self { folder, settings: BTreeMap::new(), limits: Vec::new(), user: None, program, wrapper };
        setup.with("SERVER_IP", "127.0.0.1").with("SERVER_PORT", 0).with("LOGGING_LEVEL", "DEBUG")
    }

    /// The same for this many agencies.
    pub fn of(agencies: u32) -> Self {
        Self::new().with("CLIENTS_AMOUNT", agencies)
    }

    /// With this setting in the environment.
    #[expect(clippy::needless_pass_by_value, reason = "callers write literals")]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.insert(key, value.to_string());
        self
    }

    /// Whether that setting is in the environment.
    pub fn has(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    /// Without that setting in the environment.
    pub fn without(mut self, key: &str) -> Self {
        self.settings.remove(key);
        self
    }

    /// With the soft and the hard limit of this option of `ulimit`.
    pub fn with_limit(mut self, option: &'static str, limit: u64) -> Self {
        self.limits.push((option, limit));
        self
    }

    /// As a user that has no privileges and no other processes. None unless this process is root.
    pub fn with_user_of_its_own(mut self) -> Option<Self> {
        static USED: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        let number = std::process::id().wrapping_mul(8) + USED.fetch_add(1, Ordering::Relaxed);
        self.become_user(61_000 + number % 4_000);
        Some(self)
    }

    /// Started by a command that executes its arguments, such as `env`.
    pub fn started_by(mut self, command: &[&str]) -> Self {
        self.wrapper.splice(0..0, command.iter().map(|&word| word.to_owned()));
        self
    }

    /// With a fault that strace injects into system calls, such as `close_range:error=ENOSYS`. The started process is still
    /// the server. None if strace is missing or may not trace.
    pub fn with_fault(self, fault: &str) -> Option<Self> {
        let strace = ["strace", "-DD", "-f", "-qq", "-o", "/dev/null", "-e"];
        let works = Running::try_start(Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]));
        if !works.is_ok_and(|mut strace| strace.end().success()) {
            eprintln!("skipped: strace is missing or may not trace");
            return None;
        }
        Some(self.started_by(&[&strace[..], &[&format!("inject={fault}")]].concat()))
    }

    /// In a root folder that contains only the program and this setup's files. None unless this process is root.
    pub fn in_empty_root(mut self) -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can change the root");
            return None;
        }
        self.copy_program();
        self.program = "/loteria".into();
        let folder = self.path("").display().to_string();
        Some(self.started_by(&["chroot", &folder]))
    }

    /// As a user of its own, in an IPC namespace of its own with these limits (`fs.mqueue.NAME`). None unless this process
    /// is root.
    pub fn with_mqueue_limits(self, limits: &[(&str, u32)]) -> Option<Self> {
        let setup = self.with_user_of_its_own()?;
        let set = limits.iter().map(|(name, limit)| format!("echo {limit} > /proc/sys/fs/mqueue/{name} && "));
        let user = setup.user.expect("a user of its own");
        let become_user = format!("exec setpriv --reuid {user} --regid {user} --clear-groups \"$@\"");
        let script = set.chain([become_user]).collect::<String>();
        Some(setup.started_by(&["unshare", "--ipc", "sh", "-c", &script, "sh"]))
    }

    /// Another server of the same user, in another folder. This setup must have a user of its own.
    pub fn beside(&self) -> Self {
        let mut other = Self::new();
        other.become_user(self.user.expect("a user of its own"));
        other
    }

    fn become_user(&mut self, user: u32) {
        std::os::unix::fs::chown(self.folder.path(), Some(user), Some(user)).unwrap();
        // The user may not be allowed to reach the program where cargo put it.
        self.copy_program();
        self.user = Some(user);
    }

    /// Copies the program into the folder, by another process. A file that this process has open for writing cannot be
    /// executed, and neither can one that a child of another thread has inherited.
    fn copy_program(&mut self) {
        self.program = self.path("loteria");
        assert!(output(Command::new("cp").arg(&*PROGRAM).arg(&self.program)).status.success());
    }

    /// The server's user, if it has one of its own.
    pub fn user(&self) -> Option<u32> {
        self.user
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// The path of the bets file.
    pub fn bets_path(&self) -> PathBuf {
        self.path("bets.csv")
    }

    /// The content of the bets file.
    pub fn bets_file(&self) -> Vec<u8> {
        fs::read(self.bets_path()).unwrap()
    }

    /// The content of the state file.
    pub fn state(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path("bets.csv.state")).unwrap()).unwrap()
    }

    /// Writes a file into the folder.
    pub fn write(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Locks the bets file as a storage service does. Closing the returned file unlocks it.
    pub fn lock_bets(&self) -> File {
        let file = File::options().write(true).open(self.bets_path()).unwrap();
        let (write, start) = (libc::F_WRLCK.try_into().unwrap(), libc::SEEK_SET.try_into().unwrap());
        let whole = libc::flock { l_type: write, l_whence: start, l_start: 0, l_len: 0, l_pid: 0 };
        fcntl(&file, FcntlArg::F_SETLK(&whole)).unwrap();
        file
    }

    /// Starts a server and waits until its log says that it listens.
    pub fn start(&self) -> RunningServer {
        let mut server = self.spawn();
        until("the server listens", || {
            assert!(server.try_wait().is_none(), "the server ended before it listened");
            server.log().value("listen", "port").is_some()
        });
        server.port = server.log().value("listen", "port").unwrap().parse().unwrap();
        server
    }

    /// Starts a server whose log level hides that it listens, and waits until it accepts connections.
    pub fn start_quietly(&self) -> RunningServer {
        let port = free_port();
        let mut server = self.clone().with("SERVER_PORT", port).spawn();
        until("the server listens", || Client::try_connect(port).is_ok());
        server.port = port;
        server
    }

    /// Runs a server that ends by itself.
    pub fn run(&self) -> Ended {
        let mut server = self.spawn();
        let status = server.wait();
        Ended { code: status.code(), log: server.log() }
    }

    /// Starts a server without waiting for anything.
    pub fn spawn(&self) -> RunningServer {
        let slot = self.user.is_none().then(Slot::take);
        let log_path =
            (1..1000).map(|run| self.path(&format!("log-{run}"))).find(|path| !path.exists()).unwrap();
        let log = File::options().create(true).append(true).open(&log_path).unwrap();
        let process = Running::start(self.command().stderr(log));
        RunningServer { setup: self.clone(), process, log_path, port: 0, slot }
    }

    fn command(&self) -> Command {
        let limits = self.limits.iter().map(|(option, limit)| format!("limit {option} {limit} && "));
        let script = format!("{LIMIT} {}exec \"$@\"", limits.collect::<String>());
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).args(&self.wrapper).arg(&self.program).arg("server");
        command.env_clear().envs(&self.settings);
        if !self.wrapper.is_empty() {
            command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        }
        // A wrapper needs root's privileges and drops them itself.
        if let Some(user) = self.user.filter(|_| self.wrapper.is_empty()) {
            command.uid(user).gid(user);
        }
        command.current_dir(self.folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

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
    setup: Setup,
    process: Running,
    log_path: PathBuf,
    port: u16,
    slot: Option<Slot>,
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

    /// Opens a session of agency 1 and asks twice for the result, so that the handler locks the shared array twice. The
    /// failpoint `handler_has_mutex=1*off->...` acts at the second time.
    pub fn session_at_its_second_look(&self) -> Client {
        let (mut client, _) = self.session(1);
        client.send_frame(kind::RESULT_REQUEST, b"");
        client.expect(kind::IN_PROGRESS, b"");
        client.send_frame(kind::RESULT_REQUEST, b"");
        client
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
        let storage = self.storage();
        processes::children_of(self.pid()).into_iter().filter(|pid| *pid != storage).collect()
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
struct Slot;

static SLOTS: (Mutex<usize>, Condvar) = (Mutex::new(5), Condvar::new());

impl Slot {
    fn take() -> Self {
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
