//! What all children inherit. It is made before the first fork.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::geteuid;

use crate::ipc::shared_counters::SharedCounters;
use crate::ipc::shared_state::SharedState;
use crate::logging::{Field, Level, Outcome, event, info};
use crate::server::error::ServerError;
use crate::server::storage::paths::folder_of;
use crate::system::confinement::{Confinement, ConfinementReport};
use crate::system::mqueue::{self, QueuePair, QueueReceiver, QueueSender};

pub(super) struct SharedResources {
    /// Storage's end of the request queue.
    pub(super) receiver: QueueReceiver,
    /// The handlers' end of the request queue.
    pub(super) sender: QueueSender,
    pub(super) state: SharedState,
    pub(super) counters: SharedCounters,
    pub(super) confinement: Confinement,
}

impl SharedResources {
    /// The path of the bets gives the queue its name.
    pub(super) fn new(bets: &Path) -> Result<Self, ServerError> {
        let QueuePair { receiver, sender, capacity, limited_by } = mqueue::create(&queue_name(bets))?;
        if let Some(reason) = limited_by {
            // A small queue works as a usual one does, but many small messages take longer.
            let fields: [Field<'_>; 2] = [("messages", &capacity), ("reason", &reason)];
            event(Level::Warning, "request_queue", Outcome::Success, &fields);
        }
        let counters = SharedCounters::new().map_err(ServerError::of("can't share memory"))?;
        let confinement =
            Confinement::probe().map_err(ServerError::of("can't find out how to confine handlers"))?;
        let ConfinementReport { identity, limits, landlock, seccomp } = confinement.report;
        let fields: [Field<'_>; 4] =
            [("identity", &identity), ("limits", &limits), ("landlock", &landlock), ("seccomp", &seccomp)];
        info("confinement", Outcome::Success, &fields);
        let resources = Self { receiver, sender, state: SharedState::new(), counters, confinement };
        // The filter refuses the calls that make these resources, so it comes after them.
        resources.confinement.enter_server().map_err(ServerError::of("can't confine the server"))?;
        Ok(resources)
    }
}

/// The name of the queue: the same for each server with these bets, so that the next start removes the queue of a killed
/// server. It names the folder by device and inode, because containers with a common IPC namespace may use equal paths. Two
/// servers with the same name do not disturb each other.
fn queue_name(bets: &Path) -> String {
    // Storage will report a folder that can't be read.
    let (device, inode) = folder_of(bets).metadata().map_or((0, 0), |folder| (folder.dev(), folder.ino()));
    let file: String = bets.file_name().unwrap_or_default().to_string_lossy().chars().take(32).collect();
    format!("{}-{device:x}-{inode:x}-{file}", geteuid())
}
