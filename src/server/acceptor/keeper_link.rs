//! The acceptor's link to the keeper that serves, and to a keeper that reads its files and then takes over.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::Utc;

use super::pause::Pause;
use crate::ipc::keeper::{KeeperClient, MAX_MESSAGE, Ready, ToKeeper, decode_message, encode_message};
use crate::ipc::messages::ClientNumber;
use crate::ipc::voucher::VoucherKey;
use crate::logging::{Field, Level, Outcome, event};
use crate::lottery::AgencyList;
use crate::protocol::status::utc_text;
use crate::server::error::ServerError;
use crate::server::handler::ServerIdentity;
use crate::server::keeper;
use crate::system::fd_passing::{PacketSocket, Received, Sent, packet_socket_pair};
use crate::system::memory::WipeOnForkPage;
use crate::system::process::Exit;
use crate::system::random;

/// The pause before a keeper is launched again.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause after a keeper could not use its files.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// Numbers the keepers that were launched.
pub(super) type Generation = u32;

#[derive(Debug)]
struct Process {
    generation: Generation,
    socket: PacketSocket,
}

#[derive(Debug)]
pub(super) struct KeeperLink {
    folder: PathBuf,
    /// The key of all vouchers. No child inherits it, and this process has no other copy.
    key: WipeOnForkPage,
    launched: Generation,
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
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let mut key = WipeOnForkPage::new()?;
        random::fill(key.get_mut(..VoucherKey::LEN).unwrap_or_default())?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            launched: 0,
            serving: None,
            loading: None,
            identity: None,
            must_launch: true,
            pause: Pause::default(),
        })
    }

    /// The key of all vouchers, for storage.
    pub(super) fn key(&self) -> &[u8] {
        self.key.get(..VoucherKey::LEN).unwrap_or_default()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// When a keeper must be launched.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.must_launch.then(|| self.pause.end(now).unwrap_or(now))
    }

    /// Closes the keepers' sockets. Each keeper ends once it has no clients.
    pub(super) fn stop(&mut self) {
        self.serving = None;
        self.loading = None;
        self.must_launch = false;
    }

    /// Whether a keeper must be launched now.
    pub(super) fn must_launch(&self, now: Instant) -> bool {
        self.must_launch && self.pause.end(now).is_none()
    }

    /// Makes a new keeper read the files again and then take over. A keeper that is still reading is replaced.
    pub(super) fn reload(&mut self) {
        self.must_launch = true;
        self.pause.succeed();
    }

    /// The number of the keeper to be launched.
    pub(super) fn next_generation(&self) -> Generation {
        self.launched + 1
    }

    /// A keeper has been launched, with the other end of `socket`. Returns the one that it replaces, which still read its
    /// files, and must be killed: it may wait for a file for ever.
    pub(super) fn on_launched(&mut self, socket: PacketSocket) -> Option<Generation> {
        self.launched += 1;
        self.must_launch = false;
        self.loading
            .replace(Process { generation: self.launched, socket })
            .map(|replaced| replaced.generation)
    }

    /// A keeper could not be launched. Returns whether there is something to log.
    pub(super) fn on_failed_launch(&mut self) -> bool {
        self.pause.begin(PAUSE)
    }

    /// A keeper has ended. It is an error if the first one could not use its files.
    pub(super) fn on_exit(
        &mut self,
        generation: Generation,
        exit: Exit,
        stopping: bool,
    ) -> Result<(), ServerError> {
        let is = |process: &Option<Process>| process.as_ref().is_some_and(|it| it.generation == generation);
        let (was_serving, was_loading) = (is(&self.serving), is(&self.loading));
        if stopping || (!was_serving && !was_loading) {
            // It ended because it was told to.
            return Ok(());
        }
        let gave_up = exit == Exit::Status(keeper::GAVE_UP);
        if !gave_up {
            event(Level::Error, "keeper", Outcome::Fail, &[("error", &exit)]);
        }
        if was_serving {
            self.serving = None;
            self.must_launch |= self.loading.is_none();
        } else {
            self.loading = None;
            self.must_launch |= self.serving.is_none() || !gave_up;
        }
        self.pause.begin(if gave_up { LONG_PAUSE } else { PAUSE });
        if gave_up && self.identity.is_none() { Err(ServerError::KeeperGaveUp) } else { Ok(()) }
    }

    /// What to wait for: the message that a keeper has read its files.
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.loading.as_ref().map(|process| process.socket.as_fd())
    }

    /// Lets the keeper that has read its files take over, if there is one.
    pub(super) fn receive_ready(&mut self, plain: &AgencyList) -> io::Result<()> {
        let Some(process) = &self.loading else { return Ok(()) };
        let mut buffer = vec![0; MAX_MESSAGE];
        // If the keeper has ended, SIGCHLD reports it.
        let Received::Packet(message, _) = process.socket.receive(&mut buffer)? else { return Ok(()) };
        let (ready, chain) = decode_message::<Ready>(message)?;
        let key = encode_message(&ToKeeper::Key, &[])?;
        if process.socket.send([&key, self.key()], None)? != Sent::Done {
            return Ok(());
        }
        log_ready(&ready, plain);
        self.identity = Some(ServerIdentity::new(&ready, &chain).map_err(io::Error::other)?);
        self.serving = self.loading.take();
        self.pause.succeed();
        Ok(())
    }

    /// Connects a client to the keeper that serves. None if there is none now.
    pub(super) fn connect(&self, client: ClientNumber) -> Option<KeeperClient> {
        let Process { socket, .. } = self.serving.as_ref()?;
        let (ours, theirs) = packet_socket_pair().ok()?;
        let message = encode_message(&ToKeeper::ClientCame(client), &[]).ok()?;
        let sent = socket.send([&message, &[]], Some(theirs.as_fd())).ok()?;
        (sent == Sent::Done).then(|| KeeperClient::new(ours))
    }
}

fn log_ready(ready: &Ready, plain: &AgencyList) {
    let until = utc_text(ready.certificate_until);
    let mut reasons = ready.concerns(Utc::now().timestamp());
    if !plain.is_empty() {
        reasons.push(format!("the agencies {plain} may come without a certificate (PLAIN_AGENCIES)"));
    }
    let reason = reasons.join("; ");
    let mut fields: Vec<Field<'_>> = vec![("certificate_until", &until), ("revoked", &ready.revoked)];
    let level = if reasons.is_empty() {
        Level::Info
    } else {
        fields.push(("reason", &reason));
        Level::Warning
    };
    event(level, "tls", Outcome::Success, &fields);
}
