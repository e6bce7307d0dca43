//! A POSIX message queue between related processes: see `mq_overview(7)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::mqueue::{MQ_OFlag, MqAttr, MqdT, mq_getattr, mq_open, mq_receive, mq_send, mq_unlink};
use nix::sys::stat::Mode;

/// The longest message in bytes: what the kernel lets everybody have.
pub const MESSAGE_LEN: usize = 8192;
/// How many messages a queue holds: what the kernel lets everybody have, or less, where the bytes that all queues of a
/// user may have together are nearly used up.
const MESSAGES: [i64; 4] = [MOST_MESSAGES, 5, 2, 1];
const MOST_MESSAGES: i64 = 10;

/// Makes a queue that no other process can open: its name is gone when this returns. Neither end ever blocks. It holds as
/// many messages as this user may still have, up to 10.
///
/// # Errors
/// EMFILE where the bytes that a user may have in queues (`RLIMIT_MSGQUEUE`) are used up; EACCES, ENOSPC, ENOSYS.
pub fn create() -> io::Result<(QueueReceiver, QueueSender)> {
    let name = format!("/loteria-{}-{:016x}", std::process::id(), rand::random::<u64>());
    let receiver = create_as_large_as_possible(&name)?;
    let sender = mq_open(name.as_str(), MQ_OFlag::O_WRONLY | COMMON, Mode::empty(), None);
    mq_unlink(name.as_str())?;
    Ok((receiver, QueueSender(Queue(sender?))))
}

const COMMON: MQ_OFlag = MQ_OFlag::O_NONBLOCK.union(MQ_OFlag::O_CLOEXEC);

fn create_as_large_as_possible(name: &str) -> nix::Result<QueueReceiver> {
    let mut refused = Errno::EMFILE;
    for messages in MESSAGES {
        #[expect(clippy::cast_possible_wrap, reason = "a small constant")]
        let attributes = MqAttr::new(0, messages, MESSAGE_LEN as i64, 0);
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDONLY | COMMON;
        match mq_open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes)) {
            Ok(queue) => return Ok(QueueReceiver(Queue(queue))),
            Err(Errno::EMFILE) => {}
            Err(error) => refused = error,
        }
    }
    Err(refused)
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
pub struct QueueReceiver(Queue);

impl QueueReceiver {
    /// Takes the oldest message into `buffer`, which has at least [`MESSAGE_LEN`] bytes. Returns its length; none
    /// where the queue is empty.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            return match mq_receive(&self.0.0, buffer, &mut 0) {
                Ok(length) => Ok(Some(length)),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// How many messages the queue has room for, where that is less than it should be.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn small_capacity(&self) -> io::Result<Option<i64>> {
        let messages = mq_getattr(&self.0.0)?.maxmsg();
        Ok((messages < MOST_MESSAGES).then_some(messages))
    }

    /// How many messages the queue holds now.
    ///
    /// # Errors
    /// None that a correct kernel gives.
    pub fn waiting(&self) -> io::Result<usize> {
        Ok(usize::try_from(mq_getattr(&self.0.0)?.curmsgs()).unwrap_or(0))
    }
}

impl AsFd for QueueReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// The end that gives messages. All processes that inherited it share one queue.
#[derive(Debug)]
pub struct QueueSender(Queue);

impl QueueSender {
    /// Puts a message of at most [`MESSAGE_LEN`] bytes behind the others. False where the queue is full.
    ///
    /// # Errors
    /// EMSGSIZE for a longer one.
    pub fn send(&self, message: &[u8]) -> io::Result<bool> {
        loop {
            return match mq_send(&self.0.0, message, 0) {
                Ok(()) => Ok(true),
                Err(Errno::EAGAIN) => Ok(false),
                Err(Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }
}

impl AsFd for QueueSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_a_full_queue_says_so() {
        let (receiver, sender) = create().unwrap();
        let mut buffer = [0; MESSAGE_LEN];
        assert_eq!(receiver.receive(&mut buffer).unwrap(), None);
        let mut sent = 0_u8;
        while sender.send(&[sent; 3]).unwrap() {
            sent += 1;
        }
        assert_eq!(i64::from(sent), receiver.small_capacity().unwrap().unwrap_or(MOST_MESSAGES));
        assert_eq!(receiver.waiting().unwrap(), usize::from(sent));
        for expected in 0..sent {
            assert_eq!(receiver.receive(&mut buffer).unwrap(), Some(3));
            assert_eq!(buffer[0], expected);
        }
        assert!(sender.send(&[0; MESSAGE_LEN + 1]).is_err());
    }
}
