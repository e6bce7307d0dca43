//! How a test starts a server: settings, limits, user, folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::geteuid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
use tempfile::TempDir;

use super::client::Client;
use super::program::{PROGRAM, Running, output};
use super::server::{Ended, RunningServer, Slot, free_port};
use super::until;

/// Sets a limit. The option for the number of a user's processes is `-u` in bash and `-p` in dash.
const LIMIT: &str = r#"limit() { ulimit "-$1" "$2" 2>/dev/null || { [ "$1" = u ] && ulimit -p "$2"; }; };"#;

/// How to start a server, and its folder. The folder is removed with the last setup that uses it.
#[derive(Debug, Clone)]
pub struct Setup {
    folder: Arc<TempDir>,
    pub(crate) settings: BTreeMap<&'static str, String>,
    limits: Vec<(&'static str, u64)>,
    user: Option<u32>,
    program: PathBuf,
    /// A command that gets the server's command as its arguments and executes it.
    wrapper: Vec<String>,
    without_landlock: bool,
}

impl Setup {
    /// A server on a free port of this machine, in an empty folder, with level DEBUG. All other settings have their defaults.
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::Builder::new().prefix("loteria-test-").tempdir().unwrap());
        let (program, wrapper) = (PathBuf::from(&*PROGRAM), Vec::new());
        let (settings, limits) = (BTreeMap::new(), Vec::new());
        let setup = Self { folder, settings, limits, user: None, program, wrapper, without_landlock: false };
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

    /// Where Landlock is missing, as under an old container engine: a filter refuses its calls.
    pub fn without_landlock(mut self) -> Self {
        self.without_landlock = true;
        self
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

    /// The agencies that have ended, as the state file says.
    pub fn ended(&self) -> Vec<u64> {
        let state = self.state();
        let ended = state["ended"].as_array().unwrap().iter();
        ended.map(|ended| ended["agency"].as_u64().unwrap()).collect()
    }

    /// Writes a file into the folder.
    pub fn write(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Locks the bets file as a storage service does. Closing the returned file unlocks it.
    pub fn lock_bets(&self) -> File {
        self.lock(libc::F_WRLCK)
    }

    /// Locks the bets file as a reader may do. Closing the returned file unlocks it.
    pub fn lock_bets_for_reading(&self) -> File {
        self.lock(libc::F_RDLCK)
    }

    fn lock(&self, kind: i32) -> File {
        let file = File::options().read(true).write(true).open(self.bets_path()).unwrap();
        let (kind, start) = (kind.try_into().unwrap(), libc::SEEK_SET.try_into().unwrap());
        let whole = libc::flock { l_type: kind, l_whence: start, l_start: 0, l_len: 0, l_pid: 0 };
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
        // As `2<> FILE` opens it: what could be done to a log without O_APPEND can be tried.
        let log = File::options().create_new(true).read(true).write(true).open(&log_path).unwrap();
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
        if self.without_landlock {
            refuse_landlock(&mut command);
        }
        command.current_dir(self.folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

fn refuse_landlock(command: &mut Command) {
    let rules = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, architecture).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    // SAFETY: between fork and exec the closure makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(move || apply_filter(&filter).map_err(std::io::Error::other)) };
}
