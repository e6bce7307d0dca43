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
use nix::sys::time::TimeSpec;
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
#[error("{reason}")]
pub struct QueueError {
    error: Errno,
    reason: String,
}

impl From<Errno> for QueueError {
    /// Finds the limit that an error of `mq_open(3)` is about. Call it before any descriptor is closed.
    fn from(error: Errno) -> Self {
        let reason = match error {
            Errno::ENOSPC => {
                let limit = read_limit("queues_max").map_or("too low".to_owned(), |limit| limit.to_string());
                format!("the system allows no further message queue: fs.mqueue.queues_max is {limit}")
            }
            // Two limits give EMFILE. Only the limit of descriptors makes `dup` fail too.
            Errno::EMFILE if nix::unistd::dup(io::stderr()).is_err() => {
                format!("this process may have no further descriptor: ulimit -n is {}", descriptor_limit())
            }
            Errno::EMFILE => format!(
                "this user's bytes in message queues, which are counted over all containers, are used up: ulimit -q is {}; \
                 raise it, stop another server, or be another user",
                byte_limit()
            ),
            // Even the smallest queue is larger than the system allows.
            Errno::EINVAL => "fs.mqueue.msgsize_max is too low".to_owned(),
            Errno::ENOSYS => "this kernel has no POSIX message queues".to_owned(),
            other => io::Error::from(other).to_string(),
        };
        Self { error, reason }
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
    use Errno::{EACCES, EEXIST, ENOENT, EPERM};
    match try_create(&format!("/loteria-{name}")) {
        // Somebody else has the name or has removed it.
        Err(QueueError { error: EACCES | EEXIST | ENOENT | EPERM, .. }) => {
            try_create(&format!("/loteria-{:08x}", random::number()?))
        }
        outcome => outcome,
    }
}

fn try_create(name: &str) -> Result<QueuePair, QueueError> {
    // This fails if there is no such name, or it belongs to another user.
    mq_unlink(name).unwrap_or_default();
    let (receiver, size, limited_by) = create_largest(name)?;
    let sender = open(name, MQ_OFlag::O_WRONLY, None);
    mq_unlink(name)?;
    // The receiver is still open here, so the conversion of the error can recognise the limit of descriptors.
    let sender = sender?;
    // A process that called this at the same time may have replaced the queue of that name by its own.
    if fstat(&receiver.0)?.st_ino != fstat(&sender.0)?.st_ino {
        return Err(Errno::EEXIST.into());
    }
    let message_len = usize::try_from(size.msgsize()).unwrap_or(0);
    Ok(QueuePair {
        receiver: QueueReceiver { queue: receiver, message_len },
        sender: QueueSender { queue: sender, message_len },
        capacity: size.maxmsg(),
        limited_by,
    })
}

/// Creates the largest queue that the limits allow. Returns its size too, and why it is smaller than usual, if it is.
fn create_largest(name: &str) -> nix::Result<(Queue, MqAttr, Option<String>)> {
    let limits = [("msg_max", USUAL.0), ("msgsize_max", USUAL.1)]
        .map(|(name, usual)| (name, usual, read_limit(name).unwrap_or(usual)));
    let [(.., most_messages), (.., longest)] = limits;
    let low = limits.iter().filter(|(_, usual, limit)| limit < usual);
    let mut reasons: Vec<_> = low.map(|(name, _, limit)| format!("fs.mqueue.{name} is {limit}")).collect();
    let mut refused = None;
    for (messages, length) in SIZES {
        let size = MqAttr::new(0, messages.min(most_messages), length.min(longest), 0);
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDONLY | MQ_OFlag::O_NONBLOCK;
        match open(name, flags, Some(&size)) {
            Err(error @ (Errno::EMFILE | Errno::EINVAL)) => refused = Some(error),
            queue => {
                reasons.extend(refused.map(|error| match error {
                    Errno::EMFILE => format!(
                        "this user's bytes in message queues are nearly used up (ulimit -q is {})",
                        byte_limit()
                    ),
                    _ => "fs.mqueue.msg_max or fs.mqueue.msgsize_max is low".to_owned(),
                }));
                let limited_by = (!reasons.is_empty()).then(|| reasons.join(", "));
                return Ok((queue?, size, limited_by));
            }
        }
    }
    Err(refused.unwrap_or(Errno::EINVAL))
}

fn open(name: &str, flags: MQ_OFlag, attributes: Option<&MqAttr>) -> nix::Result<Queue> {
    mq_open(name, flags | MQ_OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR, attributes).map(Queue)
}

/// A queue descriptor, closed on drop.
#[derive(Debug)]
struct Queue(MqdT);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: on Linux a queue descriptor is a file descriptor; this one is open, and nobody else closes it.
        drop(unsafe { OwnedFd::from_raw_fd(self.0.as_raw_fd()) });
    }
}

/// The end that takes messages.
#[derive(Debug)]
pub struct QueueReceiver {
    queue: Queue,
    /// The longest message in bytes.
    pub message_len: usize,
}

impl QueueReceiver {
    /// Takes the oldest message into `buffer`, which has at least [`Self::message_len`] bytes. Returns its length; none if
    /// the queue is empty.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match retry(|| mq_receive(&self.queue.0, buffer, &mut 0)) {
            Err(Errno::EAGAIN) => Ok(None),
            length => Ok(Some(length?)),
        }
    }

    /// How many messages the queue holds now.
    pub fn waiting(&self) -> io::Result<usize> {
        Ok(usize::try_from(mq_getattr(&self.queue.0)?.curmsgs()).unwrap_or(0))
    }
}

impl AsFd for QueueReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.0.as_fd()
    }
}

/// The end that gives messages. All processes that inherit it share the flags of its descriptor.
#[derive(Debug)]
pub struct QueueSender {
    queue: Queue,
    /// The longest message in bytes.
    pub message_len: usize,
}

impl QueueSender {
    /// Puts a message of at most [`Self::message_len`] bytes behind the others. If the queue is full, waits for room, but only
    /// until `until`. Returns whether the message is in the queue.
    pub fn send(&self, message: &[u8], until: SystemTime) -> io::Result<bool> {
        let until = TimeSpec::from(until.duration_since(UNIX_EPOCH).unwrap_or_default());
        let (queue, start) = (self.queue.0.as_raw_fd(), message.as_ptr().cast());
        // SAFETY: the call only reads the message and the time, which live through it.
        let send = || unsafe { libc::mq_timedsend(queue, start, message.len(), 0, until.as_ref()) };
        match retry(|| Errno::result(send())) {
            // EAGAIN means that a process which shares the descriptor has made it non-blocking.
            Err(Errno::ETIMEDOUT | Errno::EAGAIN) => Ok(false),
            done => Ok(done.map(|_| true)?),
        }
    }
}

impl AsFd for QueueSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_start_at_once_with_one_name_get_a_queue_each() {
        let create_many = |thread: u8| {
            for _ in 0..300 {
                let QueuePair { receiver, sender, .. } = create("test-at-once").unwrap();
                assert!(sender.send(&[thread], UNIX_EPOCH).unwrap());
                let mut buffer = vec![0; receiver.message_len];
                assert_eq!(receiver.receive(&mut buffer).unwrap(), Some(1));
                assert_eq!(buffer[0], thread);
                assert_eq!(receiver.waiting().unwrap(), 0);
            }
        };
        std::thread::scope(|scope| [0, 1].map(|thread| drop(scope.spawn(move || create_many(thread)))));
        assert_eq!(mq_unlink("/loteria-test-at-once"), Err(Errno::ENOENT), "the name was removed");
    }
}
