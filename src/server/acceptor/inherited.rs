//! What is made before the first fork, as all children inherit it.

use std::io;

use crate::confinement::InForce;
use crate::ipc::finished_agencies::FinishedAgencies;
use crate::ipc::shared_counters::SharedCounters;
use crate::logging::{Level, Outcome, event, info};
use crate::server::ServerError;
use crate::system::confinement::Confinement;
use crate::system::mqueue::{self, QueueReceiver, QueueSender};

/// The request queue, the shared memory, the layers of confinement.
pub(super) struct Inherited {
    /// Storage's end of the request queue.
    pub(super) receiver: QueueReceiver,
    /// The handlers' end of it.
    pub(super) sender: QueueSender,
    pub(super) finished: FinishedAgencies,
    pub(super) counters: SharedCounters,
    pub(super) confinement: Confinement,
}

impl Inherited {
    /// Makes all of it, and logs what is not as it should be.
    pub(super) fn make() -> Result<Self, ServerError> {
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

/// It works as a full one does, but many small messages take longer.
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
