//! The client's side: a stream to the server, over TLS or plain.

use std::io::{self, BufRead as _, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription as Alert, CertificateError, ClientConfig, ClientConnection, Error};
use thiserror::Error;

use super::folder::{FolderError, TlsFolder};
use super::{VERSIONS, provider};
use crate::protocol::frame::FrameBuffer;
use crate::protocol::message::ServerMessage;

/// The longest plain reply before TLS, in bytes.
const MAX_PLAIN: u32 = 4096;
/// The first byte of TLS: a handshake message or an alert.
const TLS_BYTES: [u8; 2] = [0x16, 0x15];

/// A server, and how to reach it.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// None for plain TCP.
    pub tls: Option<ClientTls>,
}

impl Target {
    /// Describes the server at `HOST:PORT`, reached over TLS if there is a folder with certificates.
    pub fn new(address: String, folder: Option<&Path>) -> Result<Self, FolderError> {
        let tls = folder.map(|folder| ClientTls::load(folder, &address)).transpose()?;
        Ok(Self { address, tls })
    }

    /// Describes the server at this address, reached over plain TCP.
    pub fn plain(address: &impl ToString) -> Self {
        Self { address: address.to_string(), tls: None }
    }
}

/// How to reach one server over TLS.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

impl ClientTls {
    /// Loads the certificates of a folder, for a server at `HOST:PORT`.
    pub fn load(folder: &Path, address: &str) -> Result<Self, FolderError> {
        let folder = TlsFolder::new(folder);
        let mut config = ClientConfig::builder_with_provider(provider().into())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| folder.problem("", &error))?
            .with_root_certificates(folder.roots()?)
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(folder.identity()?)));
        config.resumption = Resumption::disabled();
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let problem = format!("no certificate can be for the server's name {host:?}");
        let server = ServerName::try_from(host).map_err(|_| folder.problem("", &problem))?;
        Ok(Self { config: Arc::new(config), server })
    }
}

/// Why a TLS connection failed.
#[derive(Debug, Clone, Error)]
pub enum TlsError {
    /// Another attempt would fail too, until someone changes a certificate or the configuration.
    #[error("{0}")]
    Final(String),
    /// The server refuses this connection, but may accept another one.
    #[error("{0}")]
    RefusedForNow(String),
    #[error("TLS: {0}")]
    Broken(Error),
}

impl TlsError {
    /// Returns the TLS error inside an error of a stream, if there is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(ErrorKind::InvalidData, error)
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        let not_accepted = "the server's certificate is not accepted";
        match error {
            Error::AlertReceived(alert) => {
                let text = format!("the server refused the connection: {}", meaning(alert));
                match alert {
                    Alert::InternalError | Alert::UserCanceled | Alert::HandshakeFailure => {
                        Self::RefusedForNow(text)
                    }
                    _ => Self::Final(text),
                }
            }
            // Another authority of the same name gives a wrong signature.
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Self::Final(format!("{not_accepted}: it is not signed by an authority of ca.crt"))
            }
            Error::InvalidCertificate(error) => Self::Final(format!("{not_accepted}: {error}")),
            error => Self::Broken(error),
        }
    }
}

/// Returns what an alert tells this client.
fn meaning(alert: Alert) -> String {
    let text = match alert {
        Alert::CertificateExpired => "this certificate has expired, or is not valid yet",
        Alert::CertificateRevoked => "this certificate has been revoked",
        Alert::UnknownCA => "this certificate is not signed by an authority that the server accepts",
        Alert::CertificateRequired => "it demands a certificate",
        Alert::AccessDenied => "this certificate names no agency and not the operator",
        Alert::UnsupportedCertificate => "this certificate is not for TLS clients",
        Alert::BadCertificate | Alert::CertificateUnknown => "this certificate is not acceptable",
        Alert::DecryptError => "a signature is wrong",
        Alert::HandshakeFailure => "it can't check certificates now",
        other => return format!("TLS alert {other:?}"),
    };
    text.to_owned()
}

/// A connection to the server.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    /// Whether the server has answered with TLS.
    is_confirmed: bool,
}

impl Stream {
    /// Begins a connection, plain without `tls`. The first calls of [`Self::receive`] make the TLS handshake.
    pub fn new(tcp: TcpStream, tls: Option<&ClientTls>) -> io::Result<Self> {
        let start = |tls: &ClientTls| ClientConnection::new(tls.config.clone(), tls.server.clone());
        let tls = tls.map(start).transpose().map_err(TlsError::from)?;
        let mut this = Self { tcp, tls, is_confirmed: false };
        this.flush()?;
        Ok(this)
    }

    /// Returns the socket, whose options may be changed.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether the TLS handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Over TLS, reads once from the socket, and sends what the handshake demands.
    pub fn receive(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if !self.is_confirmed {
            confirm_tls(&mut self.tcp)?;
            self.is_confirmed = true;
        }
        let count = tls.read_tls(&mut self.tcp)?;
        let processed = tls.process_new_packets().map_err(TlsError::from);
        // Only the end of the handshake and alerts are left to send here.
        let flushed = self.flush();
        processed?;
        if count == 0 && self.is_handshaking() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        flushed
    }

    /// Waits until a byte can be read. Returns false at the end of the stream.
    pub fn wait_readable(&mut self) -> io::Result<bool> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(self.tcp.peek(&mut [0])? > 0) };
            match tls.reader().fill_buf() {
                Ok(bytes) => return Ok(!bytes.is_empty()),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.receive()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the server that nothing more will be sent.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.flush()?;
        }
        self.tcp.shutdown(Shutdown::Write)
    }

    /// After a failed write, returns the alert with which the server has closed the connection, if it sent one.
    fn last_alert(&mut self) -> Option<io::Error> {
        let connection = self.tls.as_mut()?;
        while connection.read_tls(&mut self.tcp).is_ok_and(|count| count > 0) {
            if let Err(error) = connection.process_new_packets() {
                return Some(TlsError::from(error).into());
            }
        }
        None
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.tcp.read(bytes);
        }
        // The end may come without the alert that ends TLS. This is no risk: each frame has its length.
        if !self.wait_readable()? {
            return Ok(0);
        }
        self.tls.as_mut().map_or(Ok(0), |tls| tls.reader().read(bytes))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.write(bytes) };
        let count = tls.writer().write(bytes)?;
        self.flush()?;
        Ok(count)
    }

    /// Sends what TLS has encrypted.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(tls) = self.tls.as_mut().filter(|tls| tls.wants_write()) {
            if let Err(error) = tls.write_tls(&mut self.tcp) {
                let is_closed = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                return Err(if is_closed { self.last_alert().unwrap_or(error) } else { error });
            }
        }
        Ok(())
    }
}

/// Checks that the server's first byte is of TLS. A server that does not speak TLS or is busy answers with a plain ERROR.
fn confirm_tls(tcp: &mut TcpStream) -> io::Result<()> {
    let mut first = [0];
    if tcp.peek(&mut first)? == 0 || TLS_BYTES.contains(&first[0]) {
        return Ok(());
    }
    let mut incoming = FrameBuffer::new(MAX_PLAIN);
    while !incoming.has_frame() {
        match tcp.read(incoming.space())? {
            0 => break,
            count => incoming.received(count),
        }
    }
    let reply = incoming.next_frame().ok().flatten().map(ServerMessage::decode);
    let reason = match reply {
        Some(Ok(ServerMessage::Error(reason))) => reason.to_owned(),
        _ => format!("byte 0x{:02x}", first[0]),
    };
    let error = if reason.starts_with("busy") {
        TlsError::RefusedForNow(format!("the server says: {reason}"))
    } else {
        TlsError::Final(format!("the server does not speak TLS: it answered in plain text: {reason}"))
    };
    Err(error.into())
}
