//! Packets and descriptors between related processes, through a pair of Unix sockets (`unix(7)`, `SCM_RIGHTS`). Each packet
//! arrives whole or not at all, together with its descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::slice;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// Whether a packet was sent.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Done,
    /// It was not sent: the socket is full until the peer reads.
    Full,
    /// It was not sent: the system lacks memory, or too many descriptors are in transit. A retry may succeed, but no
    /// event says when.
    Scarce,
    /// It was not sent: no process has the other end any more.
    PeerGone,
}

/// What was received. `P` is what was decoded from a packet.
#[must_use]
#[derive(Debug)]
pub enum Received<P> {
    /// A packet, and the descriptor that came with it.
    Packet(P, Option<OwnedFd>),
    /// No packet waits.
    Empty,
    /// No packet waits, and no process has the other end any more.
    PeerGone,
}

/// Makes a connected pair. The sockets never block, and are closed on exec.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Sends a packet, the concatenation of `parts`, with a copy of the descriptor.
pub fn send_packet(
    socket: &OwnedFd,
    parts: [&[u8]; 2],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<Sent> {
    let descriptor = descriptor.map(|descriptor| descriptor.as_raw_fd());
    let rights = descriptor.as_ref().map(|raw| ControlMessage::ScmRights(slice::from_ref(raw)));
    let flags = MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(socket.as_raw_fd(), &parts.map(IoSlice::new), rights.as_slice(), flags, None) {
        Ok(_) => Ok(Sent::Done),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Sent::Full),
        Err(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => Ok(Sent::Scarce),
        Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Ok(Sent::PeerGone),
        Err(error) => Err(error.into()),
    }
}

/// Receives a packet into `buffer`, which must be long enough for it, and decodes it. The descriptor is missing if this
/// process has reached its limit of descriptors. Without `with_descriptor` the kernel makes none here, whatever the peer
/// has sent: of several, some would be made that this process does not learn of.
pub fn receive_packet<'b, P>(
    socket: &OwnedFd,
    buffer: &'b mut [u8],
    with_descriptor: bool,
    decode: impl FnOnce(&'b [u8]) -> io::Result<P>,
) -> io::Result<Received<P>> {
    let mut space = with_descriptor.then(|| nix::cmsg_space!(RawFd));
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, space.as_deref_mut(), flags) {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Received::Empty),
        Err(Errno::ECONNRESET) => return Ok(Received::PeerGone),
        Err(error) => return Err(error.into()),
    };
    // If the control message was cut short, there is no descriptor to take.
    let rights = message.cmsgs().into_iter().flatten().filter_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    // SAFETY: the kernel has just made each of these descriptors for us; nobody else owns it.
    let descriptor = rights.flatten().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).last();
    match message.bytes {
        0 => Ok(Received::PeerGone),
        length => Ok(Received::Packet(decode(buffer.get(..length).unwrap_or_default())?, descriptor)),
    }
}
