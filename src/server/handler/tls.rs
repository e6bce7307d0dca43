//! The server's side of TLS. The handler encrypts and decrypts, but it has no key: the keeper signs the handshake, and says who
//! the client is.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection, SignatureScheme};

use super::keeper_gate::{Gate, RemoteKey, Verdict};
use crate::ipc::keeper::{KeeperClient, Ready};
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
    pub fn new(ready: &Ready, chain: &[&[u8]]) -> Result<Self, rustls::Error> {
        let schemes = ready.schemes.into_iter().filter(|scheme| *scheme != 0);
        let gate = Arc::new(Gate::new(schemes.map(SignatureScheme::from).collect()));
        let cert = chain.iter().map(|bytes| CertificateDer::from(bytes.to_vec())).collect();
        let certified = CertifiedKey { cert, key: Arc::new(RemoteKey::new(gate.clone())), ocsp: None };
        let mut config = ServerConfig::builder_with_provider(provider().into())
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(gate.clone())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // The cheapest cipher, whatever the client likes best.
        config.ignore_client_order = true;
        // No resumption: whoever has a ticket's key could forge a session, and each handler would inherit it.
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
    /// Why TLS has failed, if it has.
    failure: Option<String>,
    /// Whether the verdict has been taken.
    is_judged: bool,
}

impl TlsSession {
    pub(super) fn new(identity: &ServerIdentity, keeper: Arc<KeeperClient>) -> io::Result<Self> {
        let gate = identity.gate.clone();
        gate.connect(keeper);
        let connection = ServerConnection::new(identity.config.clone()).map_err(io::Error::other)?;
        Ok(Self { connection, gate, failure: None, is_judged: false })
    }

    /// Reads once from the socket, and puts what the client has sent into `input`. Returns whether the client may send more.
    pub(super) fn read(&mut self, mut socket: &TcpStream, input: &mut FrameBuffer) -> io::Result<bool> {
        let is_open = self.connection.read_tls(&mut socket)? > 0;
        if let Err(error) = self.connection.process_new_packets() {
            self.failure = Some(error.to_string());
            return Err(io::Error::other(error));
        }
        loop {
            match self.connection.reader().read(input.space()) {
                Ok(0) => return Ok(false),
                Ok(count) => input.received(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(is_open),
                // The client has closed without the alert that ends TLS. Each frame says its own length, so a cut shows.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Encrypts bytes and writes once to the socket. Returns how many of the bytes were encrypted: not all if many wait.
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

    /// Ends TLS: sends as much as the socket takes, an alert that says why if TLS has failed.
    pub(super) fn finish(&mut self, mut socket: &TcpStream) {
        if matches!(*self.gate.verdict(), Some(Verdict::NoKeeper(_))) {
            // The client is not told that its certificate is bad, so that it comes back.
            return;
        }
        self.connection.send_close_notify();
        while self.connection.wants_write() && self.connection.write_tls(&mut socket).is_ok() {}
    }

    /// How the handshake has ended, once it has. It is told once.
    pub(super) fn take_verdict(&mut self) -> Option<Verdict> {
        if self.is_judged || (self.connection.is_handshaking() && self.failure.is_none()) {
            return None;
        }
        self.is_judged = true;
        let verdict = self.gate.verdict().clone();
        match (&self.failure, verdict) {
            // A proof does not count if the handshake fails after it.
            (Some(failure), None | Some(Verdict::Proven(_))) => Some(Verdict::Failed(failure.clone())),
            (_, verdict) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;
    use std::path::{Path, PathBuf};
    use std::thread::scope;

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
    use rustls::AlertDescription;
    use tempfile::TempDir;

    use super::*;
    use crate::certs::{self, Order};
    use crate::ipc::keeper::{
        Answer, MAX_MESSAGE, Question, Rejection, ToKeeper, decode_message, encode_message,
    };
    use crate::ipc::messages::ClientSerial;
    use crate::ipc::voucher::{Peer, VoucherKey};
    use crate::lottery::AgencyId;
    use crate::server::keeper::Keeper;
    use crate::system::fd_passing::{PacketSocket, Received, Sent, packet_socket_pair};
    use crate::tls::client::{ClientTls, Stream, TlsError};
    use crate::tls::folder::TlsFolder;

    const KEY: [u8; VoucherKey::LEN] = [9; VoucherKey::LEN];
    const SERIAL: ClientSerial = 5;

    /// The certificates of a contest.
    struct Certificates(TempDir);

    impl Certificates {
        fn new() -> Self {
            let this = Self(tempfile::tempdir().unwrap());
            this.make(None);
            this
        }

        fn make(&self, revoke: Option<u16>) {
            let server = certs::DEFAULT_NAMES.split(',').map(str::to_owned).collect();
            certs::make(&Order { agencies: 2, server, days: 30, revoke, folder: self.path("") }).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Makes another folder like that of an agency, with a certificate of these names that `change` has changed. Without
        /// an authority, the certificate signs itself.
        fn issue(
            &self,
            authority: Option<&Self>,
            names: &[&str],
            change: impl FnOnce(&mut CertificateParams),
        ) -> PathBuf {
            let key = KeyPair::generate().unwrap();
            let mut params =
                CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut params);
            let certificate = match authority {
                None => params.self_signed(&key),
                Some(authority) => {
                    let read = |name| fs::read_to_string(authority.path(name)).unwrap();
                    let issuer = KeyPair::from_pem(&read("ca.key")).unwrap();
                    params.signed_by(&key, &Issuer::from_ca_cert_pem(&read("ca.crt"), issuer).unwrap())
                }
            };
            let folder = tempfile::tempdir_in(self.0.path()).unwrap().keep();
            fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
            fs::write(folder.join("tls.crt"), certificate.unwrap().pem()).unwrap();
            fs::copy(self.path("ca.crt"), folder.join("ca.crt")).unwrap();
            folder
        }
    }

    /// Runs `body` with a keeper's socket for one client, and what the keeper has told the acceptor.
    fn with_keeper<T>(
        certificates: &Certificates,
        body: impl FnOnce(KeeperClient, ServerIdentity) -> T,
    ) -> T {
        scope(|scope| {
            let (acceptor, keeper) = packet_socket_pair().unwrap();
            let folder = TlsFolder::new(&certificates.path("server"));
            scope.spawn(move || Keeper::load(&folder, &keeper).unwrap().serve().unwrap());
            let mut buffer = vec![0; MAX_MESSAGE];
            let length = receive(&acceptor, &mut buffer);
            let (ready, chain) = decode_message::<Ready>(&buffer[..length]).unwrap();
            let (ours, theirs) = packet_socket_pair().unwrap();
            let key = encode_message(&ToKeeper::Key, &[]).unwrap();
            assert_eq!(acceptor.send([&key, &KEY], None).unwrap(), Sent::Done);
            let client = encode_message(&ToKeeper::ClientCame(SERIAL), &[]).unwrap();
            assert_eq!(acceptor.send([&client, b""], Some(theirs.as_fd())).unwrap(), Sent::Done);
            drop(theirs);
            body(KeeperClient::new(ours), ServerIdentity::new(&ready, &chain).unwrap())
        })
    }

    fn receive(socket: &PacketSocket, buffer: &mut [u8]) -> usize {
        loop {
            match socket.receive(buffer).unwrap() {
                Received::Packet(length, _) => return length,
                Received::Empty => std::thread::yield_now(),
                Received::PeerGone => panic!("the keeper has ended"),
            }
        }
    }

    /// Lets a client with the certificate of `folder` connect, and send and receive five bytes. Returns the server's verdict,
    /// and how that ended for the client.
    fn connect(certificates: &Certificates, folder: &Path) -> (Option<Verdict>, io::Result<[u8; 5]>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = ClientTls::load(folder, &address).unwrap();
        scope(|scope| {
            let client = scope.spawn(|| {
                let mut stream = Stream::new(TcpStream::connect(&address)?, Some(&tls))?;
                stream.write_all(b"hello")?;
                let mut bytes = [0; 5];
                stream.read_exact(&mut bytes)?;
                Ok(bytes)
            });
            let (socket, _) = listener.accept().unwrap();
            let verdict = with_keeper(certificates, |keeper, identity| echo(&socket, keeper, &identity));
            drop(socket);
            (verdict, client.join().unwrap())
        })
    }

    /// Serves one client: sends back what it sends.
    fn echo(socket: &TcpStream, keeper: KeeperClient, identity: &ServerIdentity) -> Option<Verdict> {
        let mut session = TlsSession::new(identity, Arc::new(keeper)).unwrap();
        let mut input = FrameBuffer::new(64);
        let mut verdict = None;
        loop {
            let read = session.read(socket, &mut input);
            verdict = session.take_verdict().or(verdict);
            while session.wants_write() && session.write(b"", socket).is_ok() {}
            if input.first() == Some(b'h') {
                session.write(b"hello", socket).unwrap();
            }
            if input.first().is_some() || !read.unwrap_or(false) {
                session.finish(socket);
                return verdict;
            }
        }
    }

    fn alert(outcome: &io::Result<[u8; 5]>) -> Option<AlertDescription> {
        match TlsError::of(outcome.as_ref().err()?)? {
            TlsError::Refused(alert) => Some(*alert),
            _ => None,
        }
    }

    #[test]
    fn a_client_proves_which_agency_it_is_and_the_keeper_vouches_for_it() {
        let certificates = Certificates::new();
        for (name, peer) in
            [("agency-2", Peer::Agency(AgencyId::new(2).unwrap())), ("operator", Peer::Operator)]
        {
            let (verdict, outcome) = connect(&certificates, &certificates.path(name));
            assert_eq!(outcome.unwrap(), *b"hello");
            let Some(Verdict::Proven(proof)) = verdict else { panic!("{verdict:?}") };
            assert_eq!(proof.peer, peer);
            assert!(VoucherKey::new(&KEY).verify(SERIAL, peer, proof.voucher));
            assert!(!proof.number.is_empty());
        }
    }

    /// The server refuses a client with this certificate, for this reason and with this alert.
    #[track_caller]
    fn assert_refused(ours: &Certificates, folder: &Path, rejection: Rejection, expected: AlertDescription) {
        let (verdict, outcome) = connect(ours, folder);
        assert!(matches!(verdict, Some(Verdict::Rejected(given)) if given == rejection), "{verdict:?}");
        assert_eq!(alert(&outcome), Some(expected), "{outcome:?}");
    }

    #[test]
    fn a_certificate_that_proves_nothing_gets_the_matching_alert() {
        use AlertDescription::{CertificateExpired, CertificateRevoked, UnknownCA, UnsupportedCertificate};
        let (ours, other) = (Certificates::new(), Certificates::new());
        let none = |_: &mut CertificateParams| {};
        let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
        let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
        let names = &["agency-1"];
        let revoked = ours.issue(None, names, none);
        for file in ["tls.crt", "tls.key"] {
            fs::copy(ours.path("agency-1").join(file), revoked.join(file)).unwrap();
        }
        ours.make(Some(1));
        for (folder, rejection, expected) in [
            (ours.issue(Some(&ours), names, expired), Rejection::Expired, CertificateExpired),
            (ours.issue(Some(&ours), names, early), Rejection::NotYetValid, CertificateExpired),
            (revoked, Rejection::Revoked, CertificateRevoked),
            (ours.issue(None, names, none), Rejection::UnknownIssuer, UnknownCA),
            (ours.issue(Some(&other), names, none), Rejection::UnknownIssuer, UnknownCA),
            (ours.path("server"), Rejection::NotForClients, UnsupportedCertificate),
        ] {
            assert_refused(&ours, &folder, rejection, expected);
        }
    }

    #[test]
    fn a_certificate_must_name_exactly_one_agency_or_the_operator() {
        let ours = Certificates::new();
        for names in [
            &["agency-1", "agency-2"][..],
            &["agency-01"],
            &["agency-0"],
            &["agency-65536"],
            &["*.agency-1"],
            &["localhost"],
            &[],
        ] {
            let folder = ours.issue(Some(&ours), names, |_| {});
            assert_refused(&ours, &folder, Rejection::WrongName, AlertDescription::AccessDenied);
        }
    }

    #[test]
    fn the_keeper_signs_one_hash_of_a_handshake_and_nothing_else() {
        let certificates = Certificates::new();
        let sign = Question::Sign { scheme: SignatureScheme::ECDSA_NISTP256_SHA256.into() };
        let prove = Question::Prove { scheme: SignatureScheme::ECDSA_NISTP256_SHA256.into() };
        let hash = &[1; 32][..];
        let wrong: [(Question, &[&[u8]]); 6] = [
            (sign, &[&[1; 31]]),
            (sign, &[&[b' '; 64 + 33 + 1 + 32]]),
            (sign, &[]),
            (Question::Sign { scheme: SignatureScheme::ECDSA_SHA1_Legacy.into() }, &[hash]),
            (Question::Sign { scheme: SignatureScheme::RSA_PSS_SHA256.into() }, &[hash]),
            (prove, &[hash, hash, hash]),
        ];
        for (question, fields) in wrong {
            with_keeper(&certificates, |keeper, _| {
                assert!(keeper.ask(question, fields).is_err(), "{question:?}");
                assert!(
                    keeper.ask(sign, &[hash]).is_err(),
                    "a client that has asked what it may not has no socket"
                );
            });
        }
        with_keeper(&certificates, |keeper, _| {
            assert!(matches!(keeper.ask(sign, &[hash]), Ok((Answer::Signed, _))));
            assert!(keeper.ask(sign, &[hash]).is_err(), "a second signature");
        });
        with_keeper(&certificates, |keeper, _| {
            keeper.ask(sign, &[&[1; 48]]).unwrap();
            let certificate = fs::read(certificates.path("agency-1").join("tls.crt")).unwrap();
            let certificate =
                <CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&certificate)
                    .unwrap();
            let (answer, _) = keeper.ask(prove, &[hash, &[0; 70], &certificate]).unwrap();
            assert_eq!(answer, Answer::Rejected(Rejection::BadSignature), "a certificate without its key");
            assert!(keeper.ask(prove, &[hash, &[0; 70], &certificate]).is_err(), "a second verdict");
        });
    }

    #[test]
    fn a_handshake_without_a_keeper_fails_and_can_be_tried_again() {
        let certificates = Certificates::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = ClientTls::load(&certificates.path("agency-1"), &address).unwrap();
        let identity = with_keeper(&certificates, |_, identity| identity);
        scope(|scope| {
            let client = scope.spawn(|| {
                let mut stream = Stream::new(TcpStream::connect(&address)?, Some(&tls))?;
                while stream.is_handshaking() {
                    stream.receive()?;
                }
                io::Result::Ok(())
            });
            let (socket, _) = listener.accept().unwrap();
            let (ours, theirs) = packet_socket_pair().unwrap();
            drop(theirs);
            assert!(matches!(echo(&socket, KeeperClient::new(ours), &identity), Some(Verdict::NoKeeper(_))));
            drop(socket);
            let error = client.join().unwrap().unwrap_err();
            assert!(TlsError::of(&error).is_none_or(|error| !error.is_final()), "{error:?}");
        });
    }
}
