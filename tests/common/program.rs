//! Processes that tests start. None of them outlives its test, even if the test is killed.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{PATIENCE, await_within, processes};

/// The program under test. Cargo puts it beside the folder of the test binaries.
pub static PROGRAM: LazyLock<String> = LazyLock::new(|| {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("loteria").into_os_string().into_string().unwrap()
});

/// The program with these arguments, an empty environment and no input.
pub fn loteria(arguments: &[&str]) -> Command {
    let mut command = Command::new(&*PROGRAM);
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    output_within(PATIENCE, command).unwrap()
}

/// How long a tool of others may take.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs a tool with these arguments to its end. None, and a word, if it is not installed.
#[track_caller]
pub fn output_of_tool(tool: &str, arguments: &[&str]) -> Option<Output> {
    match output_within(LONGEST, Command::new(tool).args(arguments)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("skipped: {tool} is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

/// Runs a command to its end, which must come within the limit. An error means that the command could not be started.
#[track_caller]
pub(crate) fn output_within(limit: Duration, command: &mut Command) -> io::Result<Output> {
    // Files, not pipes: children of a command that does not end could keep a pipe open.
    let [out, error] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    command.stdout(out.try_clone().unwrap()).stderr(error.try_clone().unwrap());
    let mut process = Running::try_start(command)?;
    let status = await_within(limit, || process.try_wait()).expect("a command that ends");
    Ok(Output { status, stdout: content(out), stderr: content(error) })
}

fn content(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The text of these bytes, which must be UTF-8.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running process. It is killed when it goes out of scope, or by the kernel if the test process is killed.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::try_start(command).unwrap()
    }

    /// Starts it, unless there is no such program.
    pub fn try_start(command: &mut Command) -> io::Result<Self> {
        loteria::system::process::die_with_parent(command);
        command.spawn().map(Self)
    }

    pub fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        processes::send(self.pid(), signal);
    }

    /// The pipe to its standard input. This and the two below can be called once each.
    pub fn stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().unwrap()
    }

    /// The pipe from its standard output.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().unwrap()
    }

    /// The pipe from its standard error.
    pub fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().unwrap()
    }

    /// How it ended. None if it still runs.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits for its end. None if it takes too long.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        await_within(PATIENCE, || self.try_wait())
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        self.wait().expect("a process that ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
