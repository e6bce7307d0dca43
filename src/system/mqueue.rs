//! A POSIX message queue between related processes: see `mq_overview(7)`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_getattr, mq_open, mq_receive, mq_send, mq_unlink};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, fstat};
use thiserror::Error;

use super::process::descriptor_limit;
use super::random;

/// How many messages a queue holds and how many bytes each has: first what the kernel allows every user by default, then
/// less, for a user whose bytes in queues are nearly used up.
const SIZES: [(i64, i64); 7] = [USUAL, (5, 8192), (2, 8192), (1, 8192), (1, 4096), (1, 2048), (1, 1024)];
const USUAL: (i64, i64) = (10, 8192);

/// Both ends of a queue.
#[derive(Debug)]
pub struct QueuePair {
    /// The end that takes messages.
    pub receiver: QueueReceiver,
    /// The end that gives messages.
    pub sender: QueueSender,
    /// Why the queue is smaller than usual, if it is.
    pub limited_by: Option<String>,
}

/// Why a queue could not be made.
#[derive(Debug, Error)]
pub enum QueueError {
    /// The system has as many queues as it may have.
    #[error("the system allows no further message queue: fs.mqueue.queues_max is {0}")]
    TooManyQueues(String),
    /// The user has as many bytes in queues as it may have.
    #[error(
        "this user's bytes in message queues, which are counted over all containers, are used up: ulimit -q is {0}; raise \
         it, stop another server, or be another user"
    )]
    TooManyBytes(u64),
    /// This process has as many descriptors as it may have.
    #[error("this process may have no further descriptor: ulimit -n is {0}")]
    TooManyDescriptors(u64),
    /// Even the smallest queue is larger than the system allows.
    #[error("fs.mqueue.msgsize_max is too low")]
    TooSmall,
    /// The kernel was built without queues.
    #[error("this kernel has no POSIX message queues")]
    Unsupported,
    /// Another call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The system's limits of queues, where there is a `/proc` that tells them.
#[derive(Debug, Clone, Copy)]
struct Limits {
    msg_max: Option<i64>,
    msgsize_max: Option<i64>,
}

impl Limits {
    fn read() -> Self {
        Self { msg_max: read_limit("msg_max"), msgsize_max: read_limit("msgsize_max") }
    }

    fn apply(self, (messages, length): (i64, i64)) -> (i64, i64) {
        let or_all = |limit: Option<i64>| limit.unwrap_or(i64::MAX);
        (messages.min(or_all(self.msg_max)), length.min(or_all(self.msgsize_max)))
    }
}

fn read_limit(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/fs/mqueue/{name}")).ok()?.trim().parse().ok()
}

/// Makes a queue that no other process can open: `name` is removed again when this returns. Neither end ever blocks.
///
/// A process that is killed in between leaves the name behind, and the next call with the same name removes it. So a
/// server should use the same name at each start. If the name belongs to another user, or another process uses it at this
/// moment, the queue gets a random name.
///
/// # Errors
/// A limit is reached, or the kernel has no queues.
pub fn create(name: &str) -> Result<QueuePair, QueueError> {
    if let Some(pair) = try_create(&format!("/loteria-{name}"))? {
        return Ok(pair);
    }
    let random = format!("/loteria-{:08x}", random::number()?);
    try_create(&random)?.ok_or_else(|| io::Error::from(Errno::EEXIST).into())
}

/// Makes a queue of that name; none where somebody else has the name.
fn try_create(name: &str) -> Result<Option<QueuePair>, QueueError> {
    // Where this fails, there is no such name or it belongs to another user.
    mq_unlink(name).unwrap_or_default();
    let Some((receiver, limited_by)) = create_largest(name)? else { return Ok(None) };
    let sender = open(name, MQ_OFlag::O_WRONLY, None);
    // By now the name may be that of a process that called `try_create` after this one.
    match mq_unlink(name) {
        Ok(()) | Err(Errno::ENOENT | Errno::EACCES) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    let sender = match sender {
        Ok(sender) => sender,
        Err(Errno::ENOENT | Errno::EACCES) => return Ok(None),
        Err(error) => return Err(explain(error)),
    };
    let message_len = usize::try_from(receiver.attributes()?.msgsize()).unwrap_or(0);
    let is_same = receiver.inode()? == sender.inode()?;
    let pair = || QueuePair {
        receiver: QueueReceiver { queue: receiver, message_len },
        sender: QueueSender { queue: sender, message_len },
        limited_by,
    };
    Ok(is_same.then(pair))
}

/// Makes the largest queue that the limits allow, and says what made it smaller than usual; none where the name exists.
fn create_largest(name: &str) -> Result<Option<(Queue, Option<String>)>, QueueError> {
    let limits = Limits::read();
    let mut refused = None;
    for size in SIZES {
        let (messages, length) = limits.apply(size);
        let attributes = MqAttr::new(0, messages, length, 0);
        match open(name, MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDONLY, Some(&attributes)) {
            Ok(queue) => return Ok(Some((queue, limited_by(limits, refused)))),
            Err(Errno::EEXIST | Errno::EACCES) => return Ok(None),
            Err(error @ (Errno::EMFILE | Errno::EINVAL)) => refused = Some(error),
            Err(error) => return Err(explain(error)),
        }
    }
    Err(explain(refused.unwrap_or(Errno::EINVAL)))
}

/// Says why a queue is smaller than usual; `refused` is why a larger one was refused.
fn limited_by(limits: Limits, refused: Option<Errno>) -> Option<String> {
    let named = [("msg_max", limits.msg_max, USUAL.0), ("msgsize_max", limits.msgsize_max, USUAL.1)];
    let lower = named.into_iter().filter_map(|(name, limit, usual)| {
        limit.filter(|limit| *limit < usual).map(|limit| format!("fs.mqueue.{name} is {limit}"))
    });
    let refused = refused.map(|error| match error {
        Errno::EMFILE => {
            format!("this user's bytes in message queues are nearly used up (ulimit -q is {})", byte_limit())
        }
        _ => "fs.mqueue.msg_max or fs.mqueue.msgsize_max is low".to_owned(),
    });
    let reasons: Vec<String> = lower.chain(refused).collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

fn byte_limit() -> u64 {
    getrlimit(Resource::RLIMIT_MSGQUEUE).map_or(0, |(soft, _)| soft)
}

/// Finds the limit that an error of `mq_open(3)` is about.
fn explain(error: Errno) -> QueueError {
    match error {
        Errno::ENOSPC => {
            let limit = read_limit("queues_max");
            QueueError::TooManyQueues(limit.map_or("too low".to_owned(), |limit| limit.to_string()))
        }
        // Both limits give EMFILE. Only one of them is about other descriptors too.
        Errno::EMFILE if nix::unistd::dup(io::stderr()).is_err() => {
            QueueError::TooManyDescriptors(descriptor_limit())
        }
        Errno::EMFILE => QueueError::TooManyBytes(byte_limit()),
        Errno::EINVAL => QueueError::TooSmall,
        Errno::ENOSYS => QueueError::Unsupported,
        other => QueueError::System(other.into()),
    }
}

fn open(name: &str, flags: MQ_OFlag, attributes: Option<&MqAttr>) -> nix::Result<Queue> {
    let flags = flags | MQ_OFlag::O_NONBLOCK | MQ_OFlag::O_CLOEXEC;
    mq_open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR, attributes).map(Queue)
}

/// A queue descriptor, closed on drop.
#[derive(Debug)]
struct Queue(MqdT);

impl Queue {
    fn attributes(&self) -> io::Result<MqAttr> {
        Ok(mq_getattr(&self.0)?)
    }

    /// What tells one queue from another.
    fn inode(&self) -> io::Result<u64> {
        Ok(fstat(&self.0)?.st_ino)
    }
}

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
    message_len: usize,
}

impl QueueReceiver {
    /// The longest message in bytes.
    pub(crate) fn message_len(&self) -> usize {
        self.message_len
    }

    /// Takes the oldest message into `buffer`, which has at least [`Self::message_len`] bytes. Returns its length; none
    /// where the queue is empty.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match mq_receive(&self.queue.0, buffer, &mut 0) {
                Ok(length) => Ok(Some(length)),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// How many messages the queue has room for.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub(crate) fn capacity(&self) -> io::Result<i64> {
        Ok(self.queue.attributes()?.maxmsg())
    }

    /// How many messages the queue holds now.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn waiting(&self) -> io::Result<usize> {
        Ok(usize::try_from(self.queue.attributes()?.curmsgs()).unwrap_or(0))
    }
}

impl AsFd for QueueReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.0.as_fd()
    }
}

/// The end that gives messages. All processes that inherited it share one queue.
#[derive(Debug)]
pub struct QueueSender {
    queue: Queue,
    message_len: usize,
}

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
    pub(crate) fn message_len(&self) -> usize {
        self.message_len
    }

    /// Puts a message behind the others.
    ///
    /// # Errors
    /// EMSGSIZE for one of more than [`Self::message_len`] bytes.
    pub fn send(&self, message: &[u8]) -> io::Result<Queued> {
        loop {
            return match mq_send(&self.queue.0, message, 0) {
                Ok(()) => Ok(Queued::Yes),
                Err(Errno::EAGAIN) => Ok(Queued::Full),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
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
    fn messages_come_in_order_and_a_full_queue_says_so() {
        let QueuePair { receiver, sender, .. } = create("test-order").unwrap();
        let mut buffer = vec![0; receiver.message_len()];
        assert_eq!(receiver.receive(&mut buffer).unwrap(), None);
        let mut sent = 0_u8;
        while sender.send(&[sent; 3]).unwrap() == Queued::Yes {
            sent += 1;
        }
        assert_eq!(i64::from(sent), receiver.capacity().unwrap());
        assert_eq!(receiver.waiting().unwrap(), usize::from(sent));
        for expected in 0..sent {
            assert_eq!(receiver.receive(&mut buffer).unwrap(), Some(3));
            assert_eq!(buffer[0], expected);
        }
        assert!(sender.send(&vec![0; sender.message_len() + 1]).is_err());
    }

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
                        assert_eq!(sender.send(&[thread]).unwrap(), Queued::Yes);
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
