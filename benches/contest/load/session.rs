//! Session clients: they send batches, several in flight, then END, then wait for the result.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use loteria::lottery::AgencyId;
use loteria::protocol::frame::FrameBuffer;
use loteria::protocol::message::{ClientMessage, SESSION_VERSION, ServerMessage};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::socket::{Socket, Target};
use super::stream::Stream;

/// The most batches of a session in flight.
const WINDOW: usize = 32;
/// Threads that share the clients.
const THREADS: usize = 5;
const MAX_PAYLOAD: u32 = 1 << 20;

/// A connection with a session.
#[derive(Debug)]
pub struct Session {
    agency: AgencyId,
    socket: Socket,
    inbox: FrameBuffer,
}

impl Session {
    /// Connects and sends `OPEN_SESSION`.
    pub fn request(target: &Target, agency: AgencyId) -> io::Result<Self> {
        let mut session =
            Self { agency, socket: target.connect(agency)?, inbox: FrameBuffer::new(MAX_PAYLOAD) };
        let mut open = Vec::new();
        ClientMessage::OpenSession { version: SESSION_VERSION, agency: u32::from(agency.get()) }
            .encode(&mut open);
        session.socket.send_soon(&open)?;
        Ok(session)
    }

    /// Waits until the session is open; `expected` bets of its agency must be stored.
    pub fn opened(&mut self, expected: u64) -> io::Result<()> {
        let agency_expected = self.agency;
        self.expect(|message| {
            matches!(*message, ServerMessage::SessionOpened { agency, stored, .. }
                if agency == agency_expected && stored == expected)
        })
    }

    /// Sends messages in one write.
    pub fn send(&mut self, messages: &[ClientMessage<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            message.encode(&mut bytes);
        }
        self.socket.write_all(&bytes)
    }

    /// Waits for the acknowledgement of an END.
    pub fn ended(&mut self) -> io::Result<()> {
        self.expect(|message| matches!(message, ServerMessage::BetAck))
    }

    /// Waits for the result; if `expected` is given, it must be equal.
    pub fn result(&mut self, expected: Option<&[u8]>) -> io::Result<()> {
        self.expect(|message| {
            matches!(message, ServerMessage::Result(documents)
                if expected.is_none_or(|expected| *documents == expected))
        })
    }

    fn expect(&mut self, is_right: impl Fn(&ServerMessage<'_>) -> bool) -> io::Result<()> {
        loop {
            if let Some(frame) = self.inbox.next_frame().map_err(io::Error::other)? {
                let message = ServerMessage::decode(frame).map_err(io::Error::other)?;
                return if is_right(&message) { Ok(()) } else { Err(wrong(&message)) };
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            let count = self.socket.read(self.inbox.space())?;
            self.inbox.received(count);
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            if !self.socket.has_decrypted()? {
                return Ok(());
            }
        }
    }
}

fn wrong(message: &ServerMessage<'_>) -> io::Error {
    let mut text = format!("a wrong answer: {message:?}");
    text.truncate(text.floor_char_boundary(200));
    io::Error::other(text)
}

/// Opens a session for each stream, all at once.
pub fn open(target: &Target, streams: &[Stream]) -> io::Result<Vec<Session>> {
    let sessions: io::Result<Vec<_>> =
        streams.iter().map(|stream| Session::request(target, stream.agency)).collect();
    let mut sessions = sessions?;
    for (session, stream) in sessions.iter_mut().zip(streams) {
        session.opened(stream.begin)?;
    }
    Ok(sessions)
}

/// Sends each stream over its session until everything is acknowledged.
pub fn upload(sessions: &mut [Session], streams: &[Stream]) -> io::Result<()> {
    let share = sessions.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let shares = sessions.chunks_mut(share).zip(streams.chunks(share));
        let threads: Vec<_> =
            shares.map(|(sessions, streams)| scope.spawn(|| upload_share(sessions, streams))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        })
    })
}

fn upload_share(sessions: &mut [Session], streams: &[Stream]) -> io::Result<()> {
    let pairs = sessions.iter_mut().zip(streams);
    let mut uploads: Vec<Upload<'_>> =
        pairs.map(|(session, stream)| Upload { session, stream, sent: 0, acknowledged: 0 }).collect();
    for upload in &mut uploads {
        upload.fill_window()?;
    }
    loop {
        uploads.retain(|upload| !upload.is_done());
        match uploads.as_mut_slice() {
            [] => return Ok(()),
            [only] => only.advance()?,
            several => advance_ready(several)?,
        }
    }
}

fn advance_ready(uploads: &mut [Upload<'_>]) -> io::Result<()> {
    let mut sockets: Vec<_> =
        uploads.iter().map(|upload| PollFd::new(upload.session.socket.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut sockets, PollTimeout::NONE)?;
    let ready: Vec<bool> = sockets.iter().map(|socket| socket.any() == Some(true)).collect();
    let ready = uploads.iter_mut().zip(ready).filter_map(|(upload, ready)| ready.then_some(upload));
    ready.into_iter().try_for_each(Upload::advance)
}

/// A session that sends its stream.
struct Upload<'a> {
    session: &'a mut Session,
    stream: &'a Stream,
    /// In batches.
    sent: usize,
    acknowledged: usize,
}

impl Upload<'_> {
    fn is_done(&self) -> bool {
        self.acknowledged == self.stream.batches.len()
    }

    /// Sends as many batches as may be in flight, in one write.
    fn fill_window(&mut self) -> io::Result<()> {
        let until = (self.acknowledged + WINDOW).min(self.stream.batches.len());
        let frames = self.stream.frames(self.sent..until);
        self.sent = until;
        self.session.socket.write_all(frames)
    }

    /// Receives answers and fills the window again.
    fn advance(&mut self) -> io::Result<()> {
        self.session.receive()?;
        while let Some(frame) = self.session.inbox.next_frame().map_err(io::Error::other)? {
            let message = ServerMessage::decode(frame).map_err(io::Error::other)?;
            // `stored` may be more than this batch makes it.
            let least = self.stream.batches.get(self.acknowledged).map(|batch| batch.stored);
            match message {
                ServerMessage::SessionStored { stored, .. } if least.is_some_and(|least| stored >= least) => {
                    self.acknowledged += 1;
                }
                _ => return Err(wrong(&message)),
            }
        }
        self.fill_window()
    }
}

/// Ends all agencies and waits for the results; if `expected` is given, they must be equal.
pub fn draw(sessions: &mut [Session], expected: Option<&[Vec<u8>]>) -> io::Result<()> {
    for session in sessions.iter_mut() {
        session.send(&[ClientMessage::End(None), ClientMessage::AwaitResult])?;
    }
    for (place, session) in sessions.iter_mut().enumerate() {
        session.ended()?;
        session.result(expected.and_then(|all| all.get(place)).map(Vec::as_slice))?;
    }
    Ok(())
}
