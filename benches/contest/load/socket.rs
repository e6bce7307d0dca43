//! The connection of a client, plain or over TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loteria::lottery::AgencyId;
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A run fails if the server does not answer within this time.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server, as clients see it.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    /// Clients speak TLS if there are any.
    certificates: Option<Certificates>,
}

impl Target {
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, certificates: None }
    }

    pub fn over_tls(self, certificates: &Certificates) -> Self {
        Self { certificates: Some(certificates.clone()), ..self }
    }

    /// Connects as an agency. Over TLS, the handshake has only begun: reading goes on with it.
    pub fn connect(&self, agency: AgencyId) -> io::Result<Socket> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let Some(certificates) = &self.certificates else { return Ok(Socket::Plain(socket)) };
        let config = certificates.of(agency)?;
        let host = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut client = ClientConnection::new(config, host).map_err(io::Error::other)?;
        client.write_tls(&mut &socket)?;
        Ok(Socket::Tls(Box::new(StreamOwned::new(client, socket))))
    }
}

/// What clients of the agencies 1 to n show a server over TLS.
#[derive(Debug, Clone)]
pub struct Certificates(Vec<Arc<ClientConfig>>);

impl Certificates {
    /// Reads those of the first `agencies` agencies from a folder that `loteria certs` has made.
    pub fn read(folder: &Path, agencies: u16) -> io::Result<Self> {
        (1..=agencies)
            .map(|agency| client_config(&folder.join(format!("agency-{agency}"))).map(Arc::new))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    fn of(&self, agency: AgencyId) -> io::Result<Arc<ClientConfig>> {
        let config = usize::from(agency.get()).checked_sub(1).and_then(|place| self.0.get(place));
        config.cloned().ok_or_else(|| io::Error::other(format!("agency {agency} has no certificate")))
    }
}

fn client_config(folder: &Path) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(folder.join("ca.crt")).map_err(io::Error::other)? {
        roots.add(authority.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let chain = CertificateDer::pem_file_iter(folder.join("tls.crt"))
        .and_then(Iterator::collect)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(folder.join("tls.key")).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(io::Error::other)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The socket of a client.
#[derive(Debug)]
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Sends bytes, over TLS possibly only when the handshake has ended.
    pub fn send_soon(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(tls) => tls.conn.writer().write_all(bytes),
        }
    }

    /// Whether bytes have been decrypted and not been read. No event tells of them.
    pub fn has_decrypted(&mut self) -> io::Result<bool> {
        let Self::Tls(tls) = self else { return Ok(false) };
        let state = tls.conn.process_new_packets().map_err(io::Error::other)?;
        Ok(state.plaintext_bytes_to_read() > 0)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) => socket.as_fd(),
            Self::Tls(tls) => tls.sock.as_fd(),
        }
    }
}
