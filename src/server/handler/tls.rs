//! The server's side of TLS. The handler encrypts and decrypts, but it does not have the server's key: the keeper signs the
//! handshake and identifies the client.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, SignatureScheme};

use super::keeper_gate::{Gate, NotProven, RemoteKey, Verdict};
use crate::ipc::keeper::{KeeperClient, KeeperReady};
use crate::protocol::frame::FrameBuffer;
use crate::tls::{VERSIONS, provider};

/// What the server shows to each client, as the keeper has told the acceptor. It has no secrets: each handler inherits it.
#[derive(Debug)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
    gate: Arc<Gate>,
    /// The end of the certificate, in seconds since 1970.
    pub(super) until: i64,
}

impl ServerIdentity {
    pub fn new(ready: &KeeperReady, chain: &[&[u8]]) -> Result<Self, rustls::Error> {
        // This asks the processor what it can do, which takes long on a virtual machine. Handlers inherit the answer.
        ring::digest::digest(&ring::digest::SHA256, &[]);
        let gate = Arc::new(Gate::new(ready.schemes.iter().copied().map(SignatureScheme::from).collect()));
        let cert = chain.iter().map(|bytes| CertificateDer::from(bytes.to_vec())).collect();
        let certified = CertifiedKey { cert, key: Arc::new(RemoteKey::new(gate.clone())), ocsp: None };
        let mut config = ServerConfig::builder_with_provider(provider().into())
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(gate.clone())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // The server takes the cheapest cipher that the client offers.
        config.ignore_client_order = true;
        // No resumption: each handler would inherit the key of the tickets, and could forge sessions with it.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), gate, until: ready.certificate_until })
    }
}

/// TLS on one client's socket.
#[derive(Debug)]
pub(super) struct TlsSession {
    connection: ServerConnection,
    gate: Arc<Gate>,
    /// Whether the verdict has been taken.
    is_judged: bool,
}

impl TlsSession {
    pub(super) fn new(identity: &ServerIdentity, keeper: Arc<KeeperClient>) -> io::Result<Self> {
        let gate = identity.gate.clone();
        gate.connect(keeper);
        let connection = ServerConnection::new(identity.config.clone()).map_err(io::Error::other)?;
        Ok(Self { connection, gate, is_judged: false })
    }

    /// Reads once from the socket, and puts what the client has sent into `input`. Returns whether the client may send more.
    pub(super) fn read(&mut self, mut socket: &TcpStream, input: &mut FrameBuffer) -> io::Result<bool> {
        let is_open = self.connection.read_tls(&mut socket)? > 0;
        if let Err(error) = self.connection.process_new_packets() {
            self.gate.fail(&error);
            // In a handshake the verdict reports this. Only TLS is broken, not the connection.
            return if self.is_judged { Err(io::Error::other(error)) } else { Ok(true) };
        }
        loop {
            match self.connection.reader().read(input.space()) {
                Ok(0) => return Ok(false),
                Ok(count) => input.received(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(is_open),
                // The client has closed without the alert that ends TLS. This is no risk: each frame has its length, so an
                // incomplete one is noticed.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Encrypts bytes and writes once to the socket. Returns how many bytes were encrypted: fewer if many wait to be written.
    pub(super) fn write(&mut self, bytes: &[u8], mut socket: &TcpStream) -> io::Result<usize> {
        let count = self.connection.writer().write(bytes)?;
        match self.connection.write_tls(&mut socket) {
            // What was encrypted must not be encrypted again.
            Err(error) if error.kind() == ErrorKind::WouldBlock && count > 0 => {}
            written => drop(written?),
        }
        Ok(count)
    }

    /// Whether there is something to send.
    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Ends TLS with an alert, which says why if TLS has failed. Sends as much as the socket takes.
    pub(super) fn finish(&mut self, mut socket: &TcpStream) {
        if matches!(*self.gate.verdict(), Some(Err(NotProven::NoKeeper(_)))) {
            // No alert: the client's certificate may be good, and it should try again.
            return;
        }
        self.connection.send_close_notify();
        while self.connection.wants_write() && self.connection.write_tls(&mut socket).is_ok() {}
    }

    /// How the handshake has ended, once it has. Returns it only once.
    pub(super) fn take_verdict(&mut self) -> Option<Verdict> {
        // A proof does not count before the handshake has ended.
        let is_final = !self.connection.is_handshaking() || matches!(*self.gate.verdict(), Some(Err(_)));
        if self.is_judged || !is_final {
            return None;
        }
        self.is_judged = true;
        self.gate.verdict().clone()
    }
}
