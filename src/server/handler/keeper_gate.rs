//! Forwards to the keeper what rustls would do with the server's key and with the client's certificate.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme,
};

use crate::ipc::keeper::{CertificateFault, KeeperClient, KeeperReply, Question};
use crate::ipc::voucher::{Peer, Voucher};
use crate::tls::provider;

/// The length of what precedes the hash in a signed message: 64 spaces, a text of 33 bytes and a zero.
const PREFIX: usize = 64 + 33 + 1;

/// Who a client has proven to be, and the keeper's voucher for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) peer: Peer,
    pub(super) voucher: Voucher,
    /// The serial number of its certificate.
    pub(super) serial: Vec<u8>,
}

/// Why a client has not proven who it is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) enum NotProven {
    /// The keeper has not judged the certificate, which may be good.
    NoKeeper(String),
    /// The certificate is not accepted, or the client broke the rules of TLS or sent no certificate.
    Refused(String),
}

/// How a handshake ends.
pub(super) type Verdict = Result<Proof, NotProven>;

/// The handler's side of the keeper's socket, behind the traits of rustls. The acceptor makes it. Each handler inherits a copy
/// and connects it.
#[derive(Debug)]
pub(super) struct Gate {
    keeper: OnceLock<Arc<KeeperClient>>,
    schemes: Vec<SignatureScheme>,
    /// The certificates that the client has sent.
    certificates: Mutex<Vec<CertificateDer<'static>>>,
    verdict: Mutex<Option<Verdict>>,
}

impl Gate {
    /// `schemes` says how the server's key can sign.
    pub(super) fn new(schemes: Vec<SignatureScheme>) -> Self {
        Self { keeper: OnceLock::new(), schemes, certificates: Mutex::default(), verdict: Mutex::default() }
    }

    pub(super) fn connect(&self, keeper: Arc<KeeperClient>) {
        // A handler has one client, so it does this once.
        self.keeper.set(keeper).unwrap_or_default();
    }

    /// The verdict, once the keeper has given one or has failed to answer.
    pub(super) fn verdict(&self) -> MutexGuard<'_, Option<Verdict>> {
        locked(&self.verdict)
    }

    /// Records that TLS has failed. This replaces a proof, but not an earlier failure, which has caused this error.
    pub(super) fn fail(&self, error: &Error) {
        if !matches!(*self.verdict(), Some(Err(_))) {
            self.decide(Err(NotProven::Refused(error.to_string())));
        }
    }

    fn decide(&self, verdict: Verdict) {
        *self.verdict() = Some(verdict);
    }

    fn ask(&self, question: Question, fields: &[&[u8]]) -> Result<(KeeperReply, Vec<u8>), Error> {
        let not_connected = || Err(io::ErrorKind::NotConnected.into());
        let answer = self.keeper.get().map_or_else(not_connected, |keeper| keeper.ask(question, fields));
        answer.map_err(|error| {
            self.decide(Err(NotProven::NoKeeper(format!("the keeper did not answer: {error}"))));
            Error::General("the keeper did not answer".to_owned())
        })
    }
}

/// rustls asks for mutexes. This process has one thread, so it never waits for one.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keeper's key.
#[derive(Debug, Clone)]
pub(super) struct RemoteKey {
    gate: Arc<Gate>,
    scheme: SignatureScheme,
}

impl RemoteKey {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        let scheme = gate.schemes.first().copied().unwrap_or(SignatureScheme::ED25519);
        Self { gate, scheme }
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.gate.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(Self { gate: self.gate.clone(), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.scheme {
            SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
            SignatureScheme::ECDSA_NISTP256_SHA256 | SignatureScheme::ECDSA_NISTP384_SHA384 => {
                SignatureAlgorithm::ECDSA
            }
            _ => SignatureAlgorithm::RSA,
        }
    }
}

impl Signer for RemoteKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let hash = message.get(PREFIX..).unwrap_or_default();
        match self.gate.ask(Question::Sign { scheme: self.scheme.into() }, &[hash])? {
            (KeeperReply::Signed, signature) => Ok(signature),
            _ => Err(Error::General("the keeper answered another question".to_owned())),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl ClientCertVerifier for Gate {
    /// Names no authorities to a client, which has only one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Only keeps the certificates. The keeper judges them together with the signature: certificates are no secrets.
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let all =
            [certificate].into_iter().chain(issuers).map(|certificate| certificate.clone().into_owned());
        *locked(&self.certificates) = all.collect();
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificates = locked(&self.certificates);
        let mut fields = vec![message.get(PREFIX..).unwrap_or_default(), signed.signature()];
        fields.extend(certificates.iter().map(AsRef::as_ref));
        match self.ask(Question::Prove { scheme: signed.scheme.into() }, &fields)? {
            (KeeperReply::Proven { peer, voucher }, serial) => {
                self.decide(Ok(Proof { peer, voucher, serial }));
                Ok(HandshakeSignatureValid::assertion())
            }
            (KeeperReply::Rejected(fault), _) => {
                self.decide(Err(NotProven::Refused(fault.to_string())));
                Err(Error::InvalidCertificate(certificate_error(fault)))
            }
            (KeeperReply::Signed, _) => {
                Err(Error::General("the keeper answered another question".to_owned()))
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The error for which rustls sends the alert that matches the reason.
fn certificate_error(fault: CertificateFault) -> CertificateError {
    match fault {
        CertificateFault::Malformed | CertificateFault::Other => CertificateError::BadEncoding,
        CertificateFault::Expired => CertificateError::Expired,
        CertificateFault::NotYetValid => CertificateError::NotValidYet,
        CertificateFault::Revoked => CertificateError::Revoked,
        CertificateFault::UnknownIssuer => CertificateError::UnknownIssuer,
        CertificateFault::BadSignature => CertificateError::BadSignature,
        CertificateFault::NotForClients => CertificateError::InvalidPurpose,
        CertificateFault::WrongName => CertificateError::ApplicationVerificationFailure,
    }
}
