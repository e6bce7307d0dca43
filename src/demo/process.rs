//! A process of the contest: this program, run as a server or an agency, with its log in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::system::process::{die_with_parent, signal_child};

/// This program, even if its file has been replaced or removed.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A running process. It is killed and waited for when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Where in the log its own lines begin: one that was started before may have written to it.
    log_start: u64,
}

/// An environment variable.
pub type Variable = (String, String);

impl Process {
    /// Runs a command of this program in `folder`, with nothing in its environment but those variables.
    ///
    /// # Errors
    /// It can't be started, or its log not be opened.
    pub fn start(folder: &Path, command: &str, variables: Vec<Variable>, log: &str) -> io::Result<Self> {
        let log = folder.join(log);
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let log_start = file.metadata()?.len();
        let mut program = Command::new(THIS_PROGRAM);
        program.arg(command).current_dir(folder).env_clear().envs(variables);
        // The log has local time.
        program.envs(std::env::var_os("TZ").map(|zone| ("TZ", zone)));
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        die_with_parent(&mut program);
        Ok(Self { child: program.spawn()?, log, log_start })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends it SIGTERM, if it has not ended.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn ask_to_end(&mut self) -> io::Result<()> {
        if self.ended()?.is_none() {
            let id = i32::try_from(self.child.id()).map_err(io::Error::other)?;
            signal_child(Pid::from_raw(id), Signal::SIGTERM);
        }
        Ok(())
    }

    /// The value of `key` in the first line of its log that is about that action and its success.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn logged(&self, action: &str, key: &str) -> io::Result<Option<String>> {
        let wanted = format!(" action: {action} | result: success");
        let log = self.read_log()?;
        // A line that is being written has not its end yet.
        let mut lines =
            log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(&wanted));
        Ok(lines.find_map(|line| field(line, key)).map(ToOwned::to_owned))
    }

    /// The last line of its log.
    pub fn last_line(&self) -> String {
        let log = self.read_log().unwrap_or_default();
        let line = log.lines().next_back().unwrap_or("it wrote nothing to its log");
        format!("{line} ({})", self.log.display())
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
        // It may have ended: then there is nothing to kill, and its status is known.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// The value of a key in a log line.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.trim_end().split(" | ").find_map(|field| field.strip_prefix(key)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_a_log_line_is_found() {
        let line =
            "2026-01-01 00:00:00 INFO     action: listen | result: success | ip: 127.0.0.1 | port: 7\n";
        assert_eq!(field(line, "port"), Some("7"));
        assert_eq!(field(line, "ort"), None);
        assert_eq!(field(line, "dni"), None);
    }
}
