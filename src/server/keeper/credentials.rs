//! What the keeper has loaded: the server's key, the authorities and the revocations; and what it does with them.

use std::sync::Arc;

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _, X509Certificate};

use super::known_signatures::remembering;
use crate::ipc::keeper::{CertificateFault, KeeperReady, Unfit};
use crate::ipc::voucher::Peer;
use crate::lottery::AgencyId;
use crate::lottery::bet::parse_decimal;
use crate::tls::folder::{AUTHORITIES, CERTIFICATE, FolderError, REVOCATIONS, TlsFolder};
use crate::tls::provider;

/// How a key can sign in TLS 1.3, the best first.
const SCHEMES: [SignatureScheme; 6] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
/// The lengths of the hashes of TLS 1.3: SHA-256 and SHA-384.
const HASH_LENGTHS: [usize; 2] = [32, 48];

/// The text before the hash in the message that a side of a handshake signs: RFC 8446, section 4.4.3.
const SERVER_CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
const CLIENT_CONTEXT: &[u8] = b"TLS 1.3, client CertificateVerify\0";

#[derive(Debug)]
pub(super) struct Credentials {
    identity: CertifiedKey,
    /// One for each authority. A verifier finds a revocation list by the name of its authority, and the successor of an
    /// authority often has the same name.
    verifiers: Vec<Arc<dyn ClientCertVerifier>>,
    pub(super) ready: KeeperReady,
}

impl Credentials {
    pub(super) fn load(folder: &TlsFolder) -> Result<Self, FolderError> {
        let identity = folder.identity()?;
        let (authorities, lists) = (folder.authorities()?, folder.revocations()?);
        let (revoked, list_expired) = check_lists(folder, &authorities, &lists)?;
        let (certificate_until, unfit) = examine(&identity)
            .ok_or_else(|| folder.problem(CERTIFICATE, "the first certificate is malformed"))?;
        let schemes = SCHEMES.into_iter().filter(|scheme| identity.key.choose_scheme(&[*scheme]).is_some());
        let schemes = schemes.map(u16::from).collect();
        let ready = KeeperReady { certificate_until, unfit, revoked, list_expired, schemes };
        let mut provider = provider();
        provider.signature_verification_algorithms = remembering(provider.signature_verification_algorithms);
        let provider = Arc::new(provider);
        let verifier = |authority: &CertificateDer<'static>| {
            let mut roots = RootCertStore::empty();
            roots.add(authority.clone()).map_err(|error| folder.problem(AUTHORITIES, &error))?;
            let own = lists.iter().filter(|list| has_signed(authority, list)).cloned();
            // A list that has expired still counts, and an authority without a list has revoked nothing.
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
                .with_crls(own)
                .allow_unknown_revocation_status()
                .build()
                .map_err(|error| folder.problem(REVOCATIONS, &error))
        };
        let verifiers = authorities.iter().map(verifier).collect::<Result<_, _>>()?;
        Ok(Self { identity, verifiers, ready })
    }

    /// Returns the server's certificate and those of its issuers.
    pub(super) fn chain(&self) -> Vec<&[u8]> {
        self.identity.cert.iter().map(AsRef::as_ref).collect()
    }

    /// Signs the server's side of a handshake. The message is put together here, so that nothing else gets signed.
    pub(super) fn sign(&self, scheme: u16, hash: &[u8]) -> Option<Vec<u8>> {
        let message = signed_message(SERVER_CONTEXT, hash)?;
        let signer = self.identity.key.choose_scheme(&[scheme.into()])?;
        signer.sign(&message).ok()
    }

    /// Finds out who has signed the client's side of a handshake. Returns the serial number of the certificate too.
    pub(super) fn identify(
        &self,
        scheme: u16,
        hash: &[u8],
        signature: &[u8],
        chain: &[&[u8]],
    ) -> Result<(Peer, Vec<u8>), CertificateFault> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|bytes| CertificateDer::from(*bytes)).collect();
        let (certificate, issuers) = chain.split_first().ok_or(CertificateFault::Malformed)?;
        let now = UnixTime::now();
        let verdicts = self.verifiers.iter().map(|verifier| {
            verifier.verify_client_cert(certificate, issuers, now).map(drop).map_err(|error| reason(&error))
        });
        verdicts.min_by_key(|verdict| rank(*verdict)).unwrap_or(Err(CertificateFault::UnknownIssuer))?;
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| CertificateFault::Malformed)?;
        let verify = || {
            let message = signed_message(CLIENT_CONTEXT, hash)?;
            certificate.verify_signature(algorithm(scheme.into())?, &message, signature).ok()
        };
        verify().ok_or(CertificateFault::BadSignature)?;
        Ok((peer(&certificate)?, certificate.serial().to_vec()))
    }
}

/// Returns the message that a side of a handshake signs. None if the hash does not have the length of one of TLS 1.3.
fn signed_message(context: &[u8], hash: &[u8]) -> Option<Vec<u8>> {
    HASH_LENGTHS.contains(&hash.len()).then(|| [&[b' '; 64], context, hash].concat())
}

fn algorithm(scheme: SignatureScheme) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    // The mapping has the schemes of older versions of TLS too.
    let mut mapping = provider().signature_verification_algorithms.mapping.iter();
    let (_, algorithms) = mapping.find(|(known, _)| *known == scheme && SCHEMES.contains(known))?;
    algorithms.first().copied()
}

/// Ranks the verdicts of several authorities: the lowest counts.
fn rank(verdict: Result<(), CertificateFault>) -> u8 {
    match verdict {
        Err(CertificateFault::Revoked) => 0,
        Ok(()) => 1,
        Err(CertificateFault::UnknownIssuer) => 3,
        Err(_) => 2,
    }
}

/// Returns whom the certificate names.
fn peer(certificate: &EndEntityCert<'_>) -> Result<Peer, CertificateFault> {
    let mut names = certificate.valid_dns_names();
    let (Some(name), None) = (names.next(), names.next()) else { return Err(CertificateFault::WrongName) };
    if name == "operator" {
        return Ok(Peer::Operator);
    }
    // Leading zeros would give an agency a second name.
    let number = name.strip_prefix("agency-").filter(|number| !number.starts_with('0'));
    let agency = number.and_then(|number| parse_decimal(number.as_bytes())).and_then(AgencyId::new);
    agency.map(Peer::Agency).ok_or(CertificateFault::WrongName)
}

fn reason(error: &Error) -> CertificateFault {
    let Error::InvalidCertificate(error) = error else { return CertificateFault::Malformed };
    match error {
        CertificateError::BadEncoding => CertificateFault::Malformed,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateFault::NotYetValid
        }
        CertificateError::Revoked => CertificateFault::Revoked,
        // Signed by another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => CertificateFault::UnknownIssuer,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertificateFault::NotForClients
        }
        _ => CertificateFault::Other,
    }
}

/// Returns the end of the server's certificate, and what it lacks. None if it is malformed.
fn examine(identity: &CertifiedKey) -> Option<(i64, Option<Unfit>)> {
    let (_, certificate) = X509Certificate::from_der(identity.end_entity_cert().ok()?).ok()?;
    let uses = certificate.extended_key_usage().ok()?;
    let names = certificate.subject_alternative_name().ok()?;
    let unfit = if uses.is_some_and(|uses| !uses.value.server_auth) {
        Some(Unfit::NotForServers)
    } else {
        names.is_none().then_some(Unfit::NoName)
    };
    Some((certificate.validity().not_after.timestamp(), unfit))
}

/// Checks that each list was signed by one of the authorities: a list that was not would lock everyone out. Returns how many
/// certificates are revoked, and whether a list has expired.
fn check_lists(
    folder: &TlsFolder,
    authorities: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> Result<(u32, bool), FolderError> {
    let (mut revoked, mut expired) = (0, false);
    for bytes in lists {
        let (_, list) = CertificateRevocationList::from_der(bytes)
            .map_err(|_| folder.problem(REVOCATIONS, "the revocation list is malformed"))?;
        if !authorities.iter().any(|authority| has_signed(authority, bytes)) {
            let file = folder.path(AUTHORITIES);
            let problem = format!("no authority of {} has signed this revocation list", file.display());
            return Err(folder.problem(REVOCATIONS, &problem));
        }
        revoked += u32::try_from(list.iter_revoked_certificates().count()).unwrap_or(u32::MAX);
        expired |= list.next_update().is_some_and(|end| end < ASN1Time::now());
    }
    Ok((revoked, expired))
}

fn has_signed(authority: &CertificateDer<'_>, list: &CertificateRevocationListDer<'_>) -> bool {
    let signed = || {
        let (_, authority) = X509Certificate::from_der(authority).ok()?;
        let (_, list) = CertificateRevocationList::from_der(list).ok()?;
        let is_issuer = authority.subject() == list.issuer();
        Some(is_issuer && list.verify_signature(authority.public_key()).is_ok())
    };
    signed().unwrap_or(false)
}
