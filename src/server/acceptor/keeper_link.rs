//! The acceptor's link to the keeper that serves, and to a keeper that reads its files and then takes over.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use chrono::Utc;
use nix::poll::{PollFd, PollFlags};
use nix::unistd::Pid;

use super::pause::{PAUSE, Pause};
use crate::ipc::channel::{Channel, channel};
use crate::ipc::keeper::{KeeperClient, KeeperReady, MAX_MESSAGE, ToKeeper, decode_fields};
use crate::ipc::messages::ClientNumber;
use crate::ipc::voucher::VoucherKey;
use crate::logging::{Field, Level, Outcome, event, info};
use crate::lottery::AgencyList;
use crate::protocol::status::utc_text;
use crate::server::error::ServerError;
use crate::server::handler::ServerIdentity;
use crate::system::fd_passing::{Received, Sent};
use crate::system::memory::WipeOnFork;
use crate::system::process::{Exit, GAVE_UP};
use crate::system::random;

/// The pause after a keeper could not use its files.
const LONG_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Process {
    pid: Pid,
    socket: Channel<ToKeeper, KeeperReady>,
}

#[derive(Debug)]
pub(super) struct KeeperLink {
    /// The key of all vouchers. No child inherits it, and this process has no other copy. None if TLS is not configured: then
    /// there are no keepers.
    pub(super) key: Option<WipeOnFork<{ VoucherKey::LEN }>>,
    /// The keeper that answers for new clients.
    serving: Option<Process>,
    /// The keeper that still reads its files.
    loading: Option<Process>,
    /// What the server shows to clients. None until a keeper has read its files.
    pub(super) identity: Option<ServerIdentity>,
    must_launch: bool,
    pub(super) pause: Pause,
}

impl KeeperLink {
    pub(super) fn new(is_configured: bool) -> io::Result<Self> {
        let new_key = || {
            let mut key = WipeOnFork::new()?;
            random::fill(&mut *key)?;
            io::Result::Ok(key)
        };
        Ok(Self {
            key: is_configured.then(new_key).transpose()?,
            serving: None,
            loading: None,
            identity: None,
            must_launch: is_configured,
            pause: Pause::default(),
        })
    }

    /// Whether clients can be served: there is no keeper, or one has read its files.
    pub(super) fn is_ready(&self) -> bool {
        self.key.is_none() || self.identity.is_some()
    }

    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.must_launch.then(|| self.pause.end(now).unwrap_or(now))
    }

    /// Closes the keepers' sockets. Each keeper ends once it has no clients.
    pub(super) fn stop(&mut self) {
        self.serving = None;
        self.loading = None;
        self.must_launch = false;
    }

    pub(super) fn must_launch(&self, now: Instant) -> bool {
        self.must_launch && self.pause.end(now).is_none()
    }

    /// Makes a new keeper read the files again and then take over. A keeper that is still reading is replaced.
    pub(super) fn reload(&mut self) {
        self.must_launch = true;
        self.pause.reset();
    }

    /// A keeper has been launched, with the other end of `socket`. Returns the one that it replaces, which still read its
    /// files, and must be killed: it may wait for a file for ever.
    pub(super) fn on_launched(&mut self, pid: Pid, socket: Channel<ToKeeper, KeeperReady>) -> Option<Pid> {
        self.must_launch = false;
        self.loading.replace(Process { pid, socket }).map(|replaced| replaced.pid)
    }

    /// A keeper has ended. It is an error if the first one could not use its files.
    pub(super) fn on_exit(&mut self, pid: Pid, exit: Exit, stopping: bool) -> Result<(), ServerError> {
        let has_ended = |process: &mut Process| process.pid == pid;
        let was_serving = self.serving.take_if(has_ended).is_some();
        let was_loading = self.loading.take_if(has_ended).is_some();
        if stopping || (!was_serving && !was_loading) {
            // It ended because it was told to.
            return Ok(());
        }
        let gave_up = exit == Exit::Status(GAVE_UP);
        if !gave_up {
            event(Level::Error, "keeper", Outcome::Fail, &[("error", &exit)]);
        }
        self.must_launch |=
            if was_serving { self.loading.is_none() } else { self.serving.is_none() || !gave_up };
        self.pause.begin(if gave_up { LONG_PAUSE } else { PAUSE });
        if gave_up && self.identity.is_none() { Err(ServerError::KeeperGaveUp) } else { Ok(()) }
    }

    /// What to wait for: the message that a keeper has read its files.
    pub(super) fn interest(&self) -> Option<PollFd<'_>> {
        self.loading.as_ref().map(|process| PollFd::new(process.socket.as_fd(), PollFlags::POLLIN))
    }

    /// Lets the keeper that has read its files take over, if there is one.
    pub(super) fn receive_ready(&mut self, plain: &AgencyList) -> io::Result<()> {
        let (Some(process), Some(key)) = (&self.loading, &self.key) else { return Ok(()) };
        let mut buffer = vec![0; MAX_MESSAGE];
        // If the keeper has ended, SIGCHLD reports it.
        let Received::Packet((ready, chain), _) = process.socket.receive(&mut buffer)? else { return Ok(()) };
        if process.socket.send(&ToKeeper::Key, &**key, None)? != Sent::Done {
            return Ok(());
        }
        log_ready(&ready, plain);
        let chain = decode_fields(chain)?;
        self.identity = Some(ServerIdentity::new(&ready, &chain).map_err(io::Error::other)?);
        self.serving = self.loading.take();
        self.pause.reset();
        Ok(())
    }

    /// Connects a client to the keeper that serves. None if there is none now.
    pub(super) fn connect(&self, client: ClientNumber) -> Option<KeeperClient> {
        let Process { socket, .. } = self.serving.as_ref()?;
        let (ours, theirs) = channel().ok()?;
        let sent = socket.send(&ToKeeper::ClientCame(client), &[], Some(theirs.as_fd())).ok()?;
        (sent == Sent::Done).then_some(ours)
    }
}

fn log_ready(ready: &KeeperReady, plain: &AgencyList) {
    let until = utc_text(ready.certificate_until);
    let mut reasons = ready.concerns(Utc::now().timestamp());
    if !plain.is_empty() {
        reasons.push(format!("the agencies {plain} may come without a certificate (PLAIN_AGENCIES)"));
    }
    let fields: [Field<'_>; 2] = [("certificate_until", &until), ("revoked", &ready.revoked)];
    if reasons.is_empty() {
        return info("tls", Outcome::Success, &fields);
    }
    let reason = reasons.join("; ");
    event(Level::Warning, "tls", Outcome::Success, &[&fields[..], &[("reason", &reason)]].concat());
}
