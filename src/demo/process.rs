//! A process of the contest: this program as a server or an agency, with its log in a file.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::error::DemoError;
use crate::system::process::{die_with_parent, signal_child};

/// This program, even if its file was replaced or removed.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(super) child: Child,
    log: PathBuf,
    /// The offset of its own lines in the log. An earlier process may have written to the same file.
    log_start: u64,
}

impl Process {
    /// Runs a command of this program in `folder`, with only those variables in its environment.
    pub(crate) fn start(
        folder: &Path,
        command: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        log: &str,
    ) -> io::Result<Self> {
        let log = folder.join(log);
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let log_start = file.metadata()?.len();
        let mut program = Command::new(THIS_PROGRAM);
        program.arg(command).current_dir(folder).env_clear().envs(variables);
        // The log is in local time.
        program.envs(std::env::var_os("TZ").map(|zone| ("TZ", zone)));
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        die_with_parent(&mut program);
        Ok(Self { child: program.spawn()?, log, log_start })
    }

    /// Sends SIGTERM, unless it has ended.
    pub(crate) fn terminate(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            let id = i32::try_from(self.child.id()).map_err(io::Error::other)?;
            signal_child(Pid::from_raw(id), Signal::SIGTERM);
        }
        Ok(())
    }

    /// Returns the value of `key` in the first line of its log that reports the action as a success.
    pub(crate) fn logged(&self, action: &str, key: &str) -> io::Result<Option<String>> {
        let wanted = format!(" action: {action} | result: success");
        let log = self.read_log()?;
        // The last line may be incomplete.
        let mut lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let line = lines.find(|line| line.contains(&wanted)).unwrap_or_default();
        let value = line.split(" | ").find_map(|field| field.strip_prefix(key)?.strip_prefix(": "));
        Ok(value.map(ToOwned::to_owned))
    }

    /// Returns an error that says how it failed, with the last line of its log.
    pub(crate) fn failure(&self, how: impl Display) -> DemoError {
        let log = self.read_log().unwrap_or_default();
        let line = log.lines().next_back().unwrap_or("it wrote nothing to its log");
        DemoError::Process(format!("{how}: {line} ({})", self.log.display()))
    }

    fn read_log(&self) -> io::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This fails if it has been waited for.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}
