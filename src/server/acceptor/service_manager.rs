//! Tells a service manager such as systemd that the server is ready and that it stops: the protocol of `sd_notify(3)`.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::logging::{Level, Outcome, event};

pub(super) const READY: &str = "READY=1";
pub(super) const STOPPING: &str = "STOPPING=1";

/// The variable that names the manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// How soon a message is sent again, after the socket had no room for it.
const RETRY: Duration = Duration::from_millis(100);

/// The link to the manager, if there is one. No child inherits its socket.
#[derive(Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    unsent: Option<&'static str>,
}

impl ServiceManager {
    /// Connects to the socket that the environment names. After the filter of system calls this would be refused.
    pub(super) fn connect() -> Self {
        let Some(name) = env::var_os(VARIABLE) else { return Self::default() };
        let warn = |error: &io::Error| {
            event(Level::Warning, "notify", Outcome::Fail, &[("socket", &name.display()), ("error", error)]);
        };
        Self { socket: open(&name).inspect_err(warn).ok(), ..Self::default() }
    }

    /// Sends a state to the manager. It replaces a state that could not be sent before.
    pub(super) fn tell(&mut self, state: &'static str) {
        self.unsent = Some(state);
        self.send();
    }

    /// Sends what could not be sent before. Never waits.
    pub(super) fn send(&mut self) {
        let (Some(socket), Some(state)) = (&self.socket, self.unsent) else { return };
        let sent = socket.send(state.as_bytes());
        // If the manager is gone, there is nobody to tell.
        if !sent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.unsent = None;
        }
    }

    /// When to send again.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.socket.as_ref().and(self.unsent).map(|_| now + RETRY)
    }
}

fn open(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "it begins neither with / nor with @")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address?)?;
    Ok(socket)
}
