//! TLS: certificates of a contest, and clients that have one.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore};

use super::program::{loteria, output, text};
use super::{PATIENCE, Setup};

/// Makes certificates in the folder `certs` of the setup, for so many agencies. `more` are further arguments.
#[track_caller]
pub fn make_certificates(setup: &Setup, agencies: u32, more: &[&str]) {
    let mut command = loteria(&["certs", "--agencies", &agencies.to_string()]);
    let made = output(command.args(more).current_dir(setup.path("")));
    assert!(made.status.success(), "{}", text(&made.stderr));
}

/// A server with certificates for its agencies. It accepts agencies over TLS only.
pub fn tls_setup(agencies: u32) -> Setup {
    with_tls(Setup::of(agencies), agencies)
}

/// The same for a setup, which may have a user of its own.
pub fn with_tls(setup: Setup, agencies: u32) -> Setup {
    make_certificates(&setup, agencies, &[]);
    fs::set_permissions(setup.path("certs"), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = setup.path("certs/server");
    setup.with("TLS_DIR", folder.display())
}

/// The folder of certificates of an agency.
pub fn agency_folder(setup: &Setup, agency: u32) -> PathBuf {
    setup.path(&format!("certs/agency-{agency}"))
}

/// How a client speaks TLS, with the certificate of the folder or without one.
pub fn client_config(folder: &Path, has_certificate: bool) -> ClientConfig {
    let read = |name| fs::read(folder.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&read("ca.crt")) {
        roots.add(authority.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = if has_certificate {
        let chain = CertificateDer::pem_slice_iter(&read("tls.crt")).collect::<Result<_, _>>().unwrap();
        config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&read("tls.key")).unwrap()).unwrap()
    } else {
        config.with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    config
}

/// Connects, and prepares a handshake with the certificate of the folder, or without one.
pub fn connect(port: u16, folder: &Path, has_certificate: bool) -> io::Result<(TcpStream, ClientConnection)> {
    let config = client_config(folder, has_certificate);
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok((socket, tls))
}

/// Connects with the certificate of the folder, sends bytes and reads until the server closes. Returns what it has sent.
pub fn exchange(port: u16, folder: &Path, bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    exchange_as(port, folder, true, bytes)
}

/// The same without a certificate.
pub fn exchange_without_certificate(
    port: u16,
    folder: &Path,
    bytes: &[u8],
) -> Result<Vec<u8>, rustls::Error> {
    exchange_as(port, folder, false, bytes)
}

fn exchange_as(
    port: u16,
    folder: &Path,
    has_certificate: bool,
    bytes: &[u8],
) -> Result<Vec<u8>, rustls::Error> {
    let (socket, tls) = connect(port, folder, has_certificate).unwrap();
    complete(socket, tls, bytes)
}

/// Goes on with a handshake, sends bytes and reads until the server closes. Returns what it has sent.
pub fn complete(
    mut socket: TcpStream,
    mut tls: ClientConnection,
    bytes: &[u8],
) -> Result<Vec<u8>, rustls::Error> {
    tls.writer().write_all(bytes).unwrap();
    let mut received = Vec::new();
    loop {
        while tls.wants_write() && tls.write_tls(&mut socket).is_ok() {}
        let count = tls.read_tls(&mut socket).unwrap_or(0);
        tls.process_new_packets()?;
        match tls.reader().read_to_end(&mut received) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && count > 0 => {}
            _ => return Ok(received),
        }
    }
}

/// The alert with which a server refuses the certificate of the folder.
#[track_caller]
pub fn alert(port: u16, folder: &Path) -> AlertDescription {
    match exchange(port, folder, b"") {
        Err(rustls::Error::AlertReceived(alert)) => alert,
        other => panic!("an alert was expected: {other:?}"),
    }
}

/// Starts a relay to the server: what a plain client sends to its port is sent over TLS, with the certificate of the folder.
/// Returns the port. The relay ends with this process.
pub fn relay(port: u16, folder: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let folder = folder.to_owned();
    let run = move || {
        for plain in listener.incoming() {
            let Ok((socket, tls)) = connect(port, &folder, true) else { return };
            thread::Builder::new().spawn(move || carry(plain.unwrap(), socket, tls)).unwrap();
        }
    };
    thread::Builder::new().spawn(run).unwrap();
    own
}

/// Carries bytes both ways until one side closes.
fn carry(mut plain: TcpStream, mut socket: TcpStream, mut tls: ClientConnection) -> Option<()> {
    let mut is_half_closed = false;
    let mut buffer = [0; 16 * 1024];
    loop {
        while tls.wants_write() {
            tls.write_tls(&mut socket).ok()?;
        }
        let wanted =
            if is_half_closed || tls.is_handshaking() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut fds = [PollFd::new(plain.as_fd(), wanted), PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).ok()?;
        let [from_plain, from_server] = fds.map(|fd| fd.any().unwrap_or(true));
        if from_plain {
            match plain.read(&mut buffer).ok()? {
                0 if wanted.is_empty() => return None,
                0 => {
                    is_half_closed = true;
                    tls.send_close_notify();
                }
                count => tls.writer().write_all(buffer.get(..count)?).ok()?,
            }
        }
        if from_server {
            let count = tls.read_tls(&mut socket).ok()?;
            tls.process_new_packets().ok()?;
            let mut received = Vec::new();
            let is_open = matches!(tls.reader().read_to_end(&mut received),
                Err(error) if error.kind() == ErrorKind::WouldBlock);
            plain.write_all(&received).ok()?;
            if count == 0 || !is_open {
                plain.shutdown(Shutdown::Write).ok()?;
                return None;
            }
        }
    }
}

/// Moves a file, as an operator does who replaces certificates or rotates a log.
#[expect(clippy::disallowed_methods, reason = "nothing has to outlast a loss of power here")]
pub fn move_file(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}
