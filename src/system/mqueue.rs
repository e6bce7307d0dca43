//! A POSIX message queue between related processes: see `mq_overview(7)`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_getattr, mq_open, mq_receive, mq_unlink};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, fstat};
use thiserror::Error;

use super::process::descriptor_limit;
use super::{random, retry};

/// How many messages a queue has room for, and the length of each in bytes. The kernel allows the first size to every user
/// by default. The others are for a user whose queues have nearly reached their limit of bytes.
const SIZES: [(i64, i64); 7] = [USUAL, (5, 8192), (2, 8192), (1, 8192), (1, 4096), (1, 2048), (1, 1024)];
const USUAL: (i64, i64) = (10, 8192);

/// Both ends of a queue.
#[derive(Debug)]
pub struct QueuePair {
    pub receiver: QueueReceiver,
    pub sender: QueueSender,
    /// How many messages the queue has room for.
    pub capacity: i64,
    /// Why the queue is smaller than usual, if it is.
    pub limited_by: Option<String>,
}

/// Why a queue could not be made.
#[derive(Debug, Error)]
pub enum QueueError {
    #[error("the system allows no further message queue: fs.mqueue.queues_max is {0}")]
    TooManyQueues(String),
    #[error(
        "this user's bytes in message queues, which are counted over all containers, are used up: ulimit -q is {0}; raise \
         it, stop another server, or be another user"
    )]
    TooManyBytes(u64),
    #[error("this process may have no further descriptor: ulimit -n is {0}")]
    TooManyDescriptors(u64),
    /// Even the smallest queue is larger than the system allows.
    #[error("fs.mqueue.msgsize_max is too low")]
    TooSmall,
    #[error("this kernel has no POSIX message queues")]
    Unsupported,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for QueueError {
    /// Finds the limit that an error of `mq_open(3)` is about. Call it before any descriptor is closed.
    fn from(error: Errno) -> Self {
        match error {
            Errno::ENOSPC => {
                let limit = read_limit("queues_max");
                Self::TooManyQueues(limit.map_or("too low".to_owned(), |limit| limit.to_string()))
            }
            // Two limits give EMFILE. Only the limit of descriptors makes `dup` fail too.
            Errno::EMFILE if nix::unistd::dup(io::stderr()).is_err() => {
                Self::TooManyDescriptors(descriptor_limit())
            }
            Errno::EMFILE => Self::TooManyBytes(byte_limit()),
            Errno::EINVAL => Self::TooSmall,
            Errno::ENOSYS => Self::Unsupported,
            other => Self::System(other.into()),
        }
    }
}

/// Reads a limit of the system, if there is a `/proc`.
fn read_limit(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/fs/mqueue/{name}")).ok()?.trim().parse().ok()
}

/// How many bytes this user may have in queues: `RLIMIT_MSGQUEUE`, which shells show as `ulimit -q`.
fn byte_limit() -> u64 {
    getrlimit(Resource::RLIMIT_MSGQUEUE).map_or(0, |(soft, _)| soft)
}

/// Makes a queue that no other process can open: its name is removed before this returns. The receiver never blocks. Its
/// flags are its own: the two ends are opened apart.
///
/// A process that is killed in between leaves the name behind, and the next call with the same `name` removes it. So a
/// server should use the same name at each start. If another user or another process has the name at this moment, the queue
/// gets a random one.
pub fn create(name: &str) -> Result<QueuePair, QueueError> {
    use io::ErrorKind::{AlreadyExists, NotFound, PermissionDenied};
    match try_create(&format!("/loteria-{name}")) {
        Err(QueueError::System(error))
            if matches!(error.kind(), AlreadyExists | NotFound | PermissionDenied) =>
        {
            try_create(&format!("/loteria-{:08x}", random::number()?))
        }
        outcome => outcome,
    }
}

/// Makes a queue of that name. EEXIST, ENOENT and EACCES mean that somebody else has the name or has removed it.
fn try_create(name: &str) -> Result<QueuePair, QueueError> {
    // This fails if there is no such name, or it belongs to another user.
    mq_unlink(name).unwrap_or_default();
    let (receiver, capacity, limited_by) = create_largest(name)?;
    let sender = open(name, MQ_OFlag::O_WRONLY, None);
    mq_unlink(name)?;
    // The receiver is still open here, so the conversion of the error can recognise the limit of descriptors.
    let sender = sender?;
    // A process that called this at the same time may have replaced the queue of that name by its own.
    if fstat(&receiver.descriptor)?.st_ino != fstat(&sender.descriptor)?.st_ino {
        return Err(Errno::EEXIST.into());
    }
    Ok(QueuePair { receiver: QueueReceiver(receiver), sender: QueueSender(sender), capacity, limited_by })
}

/// Creates the largest queue that the limits allow. Returns how many messages it has room for, and why it is smaller than
/// usual, if it is.
fn create_largest(name: &str) -> nix::Result<(Queue, i64, Option<String>)> {
    let limits = ["msg_max", "msgsize_max"].map(|name| (name, read_limit(name).unwrap_or(i64::MAX)));
    let [(_, messages_limit), (_, length_limit)] = limits;
    let mut refused = None;
    for size in SIZES {
        let (messages, length) = (size.0.min(messages_limit), size.1.min(length_limit));
        let attributes = MqAttr::new(0, messages, length, 0);
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDONLY | MQ_OFlag::O_NONBLOCK;
        match open(name, flags, Some(&attributes)) {
            Err(error @ (Errno::EMFILE | Errno::EINVAL)) => refused = Some(error),
            queue => return Ok((queue?, messages, limited_by(limits, refused))),
        }
    }
    Err(refused.unwrap_or(Errno::EINVAL))
}

/// Says why a queue is smaller than usual; `refused` is why a larger one was refused.
fn limited_by(limits: [(&str, i64); 2], refused: Option<Errno>) -> Option<String> {
    let low = limits.into_iter().zip([USUAL.0, USUAL.1]).filter(|((_, limit), usual)| limit < usual);
    let mut reasons: Vec<String> =
        low.map(|((name, limit), _)| format!("fs.mqueue.{name} is {limit}")).collect();
    reasons.extend(refused.map(|error| match error {
        Errno::EMFILE => {
            format!("this user's bytes in message queues are nearly used up (ulimit -q is {})", byte_limit())
        }
        _ => "fs.mqueue.msg_max or fs.mqueue.msgsize_max is low".to_owned(),
    }));
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

fn open(name: &str, flags: MQ_OFlag, attributes: Option<&MqAttr>) -> nix::Result<Queue> {
    let mut queue = Queue {
        descriptor: mq_open(name, flags | MQ_OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR, attributes)?,
        message_len: 0,
    };
    queue.message_len = usize::try_from(queue.attributes()?.msgsize()).unwrap_or(0);
    Ok(queue)
}

/// A queue descriptor, closed on drop.
#[derive(Debug)]
struct Queue {
    descriptor: MqdT,
    /// The longest message in bytes.
    message_len: usize,
}

impl Queue {
    fn attributes(&self) -> nix::Result<MqAttr> {
        mq_getattr(&self.descriptor)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: on Linux a queue descriptor is a file descriptor; this one is open, and nobody else closes it.
        drop(unsafe { OwnedFd::from_raw_fd(self.descriptor.as_raw_fd()) });
    }
}

/// The end that takes messages.
#[derive(Debug)]
pub struct QueueReceiver(Queue);

impl QueueReceiver {
    /// The longest message in bytes.
    pub fn message_len(&self) -> usize {
        self.0.message_len
    }

    /// Takes the oldest message into `buffer`, which has at least [`Self::message_len`] bytes. Returns its length; none if
    /// the queue is empty.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match retry(|| mq_receive(&self.0.descriptor, buffer, &mut 0)) {
            Err(Errno::EAGAIN) => Ok(None),
            length => Ok(Some(length?)),
        }
    }

    /// How many messages the queue holds now.
    pub fn waiting(&self) -> io::Result<usize> {
        Ok(usize::try_from(self.0.attributes()?.curmsgs()).unwrap_or(0))
    }
}

impl AsFd for QueueReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

/// The end that gives messages. All processes that inherit it share the flags of its descriptor.
#[derive(Debug)]
pub struct QueueSender(Queue);

/// What became of a message.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It is in the queue.
    Yes,
    /// The queue is full.
    Full,
}

impl QueueSender {
    /// The longest message in bytes.
    pub fn message_len(&self) -> usize {
        self.0.message_len
    }

    /// Puts a message of at most [`Self::message_len`] bytes behind the others. If the queue is full, waits for room, but only
    /// until `until`.
    pub fn send(&self, message: &[u8], until: SystemTime) -> io::Result<Queued> {
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let until = libc::timespec {
            tv_sec: until.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: until.subsec_nanos().into(),
        };
        let queue = self.0.descriptor.as_raw_fd();
        // SAFETY: the call only reads the message and the time, which live through it.
        let send = || unsafe {
            libc::mq_timedsend(queue, message.as_ptr().cast(), message.len(), 0, &raw const until)
        };
        match retry(|| Errno::result(send())) {
            // EAGAIN means that a process which shares the descriptor has made it non-blocking.
            Err(Errno::ETIMEDOUT | Errno::EAGAIN) => Ok(Queued::Full),
            done => Ok(done.map(|_| Queued::Yes)?),
        }
    }
}

impl AsFd for QueueSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_start_at_once_with_one_name_get_a_queue_each() {
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for thread in 0..2_u8 {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..300 {
                        let QueuePair { receiver, sender, .. } = create("test-at-once").unwrap();
                        assert_eq!(sender.send(&[thread], UNIX_EPOCH).unwrap(), Queued::Yes);
                        let mut buffer = vec![0; receiver.message_len()];
                        assert_eq!(receiver.receive(&mut buffer).unwrap(), Some(1));
                        assert_eq!(buffer[0], thread);
                        assert_eq!(receiver.waiting().unwrap(), 0);
                    }
                });
            }
        });
        assert_eq!(mq_unlink("/loteria-test-at-once"), Err(Errno::ENOENT), "the name was removed");
    }
}
