//! What all children inherit: it is made before the first fork.

use std::io;

use crate::confinement::InForce;
use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::shared_counters::SharedCounters;
use crate::logging::{Level, Outcome, event, info};
use crate::server::error::ServerError;
use crate::system::confinement::Confinement;
use crate::system::mqueue::{self, QueueReceiver, QueueSender};

pub(super) struct SharedResources {
    /// Storage's end of the request queue.
    pub(super) receiver: QueueReceiver,
    /// The handlers' end of the request queue.
    pub(super) sender: QueueSender,
    pub(super) finished: FinishedAgencies,
    pub(super) counters: SharedCounters,
    pub(super) confinement: Confinement,
}

impl SharedResources {
    pub(super) fn new() -> Result<Self, ServerError> {
        let (receiver, sender) = mqueue::create().map_err(ServerError::Queue)?;
        warn_of_a_small_queue(&receiver).map_err(ServerError::Queue)?;
        Ok(Self {
            receiver,
            sender,
            finished: FinishedAgencies::new().map_err(ServerError::of("can't share memory"))?,
            counters: SharedCounters::new().map_err(ServerError::of("can't share memory"))?,
            confinement: confinement().map_err(ServerError::of("can't find out how to confine handlers"))?,
        })
    }
}

fn confinement() -> io::Result<Confinement> {
    let confinement = Confinement::try_out()?;
    let InForce { identity, limits, landlock, seccomp } = confinement.in_force();
    info(
        "confinement",
        Outcome::Success,
        &[("identity", &identity), ("limits", &limits), ("landlock", &landlock), ("seccomp", &seccomp)],
    );
    Ok(confinement)
}

/// A small queue works, but many small messages take longer.
fn warn_of_a_small_queue(queue: &QueueReceiver) -> io::Result<()> {
    if let Some(messages) = queue.small_capacity()? {
        let reason = "this user's bytes in message queues are nearly used up (ulimit -q)";
        event(
            Level::Warning,
            "request_queue",
            Outcome::Success,
            &[("messages", &messages), ("reason", &reason)],
        );
    }
    Ok(())
}
