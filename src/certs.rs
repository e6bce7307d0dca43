//! `loteria certs`: makes the certificates of a contest. What exists stays.
//!
//! | in the folder | who needs it |
//! |---|---|
//! | `ca.key`, `ca.crt`, `ca.crl` | only whoever makes certificates |
//! | `server/` | the server, as its `TLS_DIR` |
//! | `agency-1/` and so on | one agency each, as its `TLS_DIR` |
//! | `operator/` | `loteria status` and `loteria metrics` |
//!
//! Only the owner can enter the folder. All users can read the folders in it, so that they can be mounted into containers.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use thiserror::Error;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _, X509Certificate};

use crate::tls::folder::{AUTHORITIES, CERTIFICATE, KEY, REVOCATIONS};

/// The default names of the server: those in the compose file and on this machine.
pub(crate) const DEFAULT_NAMES: &str = "server,localhost,127.0.0.1,::1";
/// How long certificates are valid by default, in days.
pub(crate) const DEFAULT_DAYS: u16 = 825;
/// How long the authority and its revocation lists are valid, in days.
const AUTHORITY_DAYS: u16 = 3650;
const AUTHORITY_KEY: &str = "ca.key";

/// What to make.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) agencies: u16,
    /// The server's names and addresses.
    pub(crate) server: Vec<String>,
    /// How long new certificates are valid.
    pub(crate) days: u16,
    /// The agency whose certificate is revoked and made anew.
    pub(crate) revoke: Option<u16>,
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Error)]
pub(crate) enum CertsError {
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, io::Error),
    #[error("{}: it is missing, but {} exists; put it back, or begin with another folder", .missing.display(), .exists.display())]
    Half { missing: PathBuf, exists: PathBuf },
    #[error("{path}: it has no valid certificate, key or revocation list in PEM", path = .0.display())]
    Malformed(PathBuf),
    #[error("there is no certificate of agency {0} to revoke")]
    NothingToRevoke(u16),
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes what is missing. Returns lines that say what was done with each certificate.
pub(crate) fn make(order: &Order) -> Result<String, CertsError> {
    make_folder(&order.folder, 0o700)?;
    let (authority, mut lines) = Authority::open(order)?;
    if let Some(agency) = order.revoke {
        lines += &authority.revoke(agency)?;
    }
    lines += &authority.make("server", order.server.clone(), ExtendedKeyUsagePurpose::ServerAuth)?;
    let clients = (1..=order.agencies).map(|agency| format!("agency-{agency}"));
    for name in clients.chain(["operator".to_owned()]) {
        lines += &authority.make(&name, vec![name.clone()], ExtendedKeyUsagePurpose::ClientAuth)?;
    }
    authority.copy_list()?;
    Ok(lines)
}

/// The authority that signs all certificates of an order.
struct Authority<'a> {
    order: &'a Order,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl<'a> Authority<'a> {
    /// Reads the authority, and makes it if it is missing. Returns the line on its certificate too.
    fn open(order: &'a Order) -> Result<(Self, String), CertsError> {
        let (key_path, path) = (order.folder.join(AUTHORITY_KEY), order.folder.join(AUTHORITIES));
        let (verb, key, certificate) = match (read(&key_path)?, read(&path)?) {
            (Some(key), Some(certificate)) => ("kept", key, certificate),
            (None, None) => {
                let (key, certificate) = make_authority(&key_path, &path)?;
                ("made", key, certificate)
            }
            (Some(_), None) => return Err(CertsError::Half { missing: path, exists: key_path }),
            (None, Some(_)) => return Err(CertsError::Half { missing: key_path, exists: path }),
        };
        let line = line(verb, &path)?;
        let key = KeyPair::from_pem(&key).map_err(|_| CertsError::Malformed(key_path))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|_| CertsError::Malformed(path))?;
        Ok((Self { order, issuer, certificate }, line))
    }

    /// Makes a folder with a certificate, unless there is one.
    fn make(
        &self,
        name: &str,
        names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<String, CertsError> {
        let folder = self.order.folder.join(name);
        let path = folder.join(CERTIFICATE);
        let verb = if path.exists() {
            "kept"
        } else {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = params(name, names, self.order.days)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![purpose];
            let certificate = params.signed_by(&key, &self.issuer)?;
            make_folder(&folder, 0o755)?;
            write(&folder.join(KEY), &key.serialize_pem(), 0o644)?;
            write(&folder.join(AUTHORITIES), &self.certificate, 0o644)?;
            // This comes last: a folder with this file has all files.
            write(&path, &certificate.pem(), 0o644)?;
            "made"
        };
        line(verb, &path)
    }

    /// Puts an agency's certificate on the revocation list, and removes it.
    fn revoke(&self, agency: u16) -> Result<String, CertsError> {
        let path = self.order.folder.join(format!("agency-{agency}")).join(CERTIFICATE);
        read(&path)?.ok_or(CertsError::NothingToRevoke(agency))?;
        let line = line("revoked", &path)?;
        let serial = with_certificate(&path, |certificate| certificate.raw_serial().to_vec())?;
        let list_path = self.order.folder.join(REVOCATIONS);
        let mut revoked = match read(&list_path)? {
            Some(list) => revoked_before(&list).ok_or_else(|| CertsError::Malformed(list_path.clone()))?,
            None => Vec::new(),
        };
        revoked.push(revocation(&serial, in_days(0)));
        let list = CertificateRevocationListParams {
            this_update: in_days(0).to_datetime(),
            next_update: in_days(AUTHORITY_DAYS.into()).to_datetime(),
            crl_number: SerialNumber::from(revoked.len() as u64),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        write(&list_path, &list.signed_by(&self.issuer)?.pem()?, 0o644)?;
        fs::remove_file(&path).map_err(|error| CertsError::File(path, error))?;
        Ok(line)
    }

    /// Copies the revocation list into the server's folder, if there is a list.
    fn copy_list(&self) -> Result<(), CertsError> {
        let folder = &self.order.folder;
        match read(&folder.join(REVOCATIONS))? {
            Some(list) => write(&folder.join("server").join(REVOCATIONS), &list, 0o644),
            None => Ok(()),
        }
    }
}

/// Makes the authority. Returns its key and its certificate in PEM.
fn make_authority(key_path: &Path, path: &Path) -> Result<(String, String), CertsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = params("loteria CA", Vec::new(), AUTHORITY_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (key_pem, pem) = (key.serialize_pem(), params.self_signed(&key)?.pem());
    write(key_path, &key_pem, 0o600)?;
    write(path, &pem, 0o644)?;
    Ok((key_pem, pem))
}

/// Returns what all certificates have in common. They are valid from yesterday on, because clocks may differ.
fn params(name: &str, names: Vec<String>, days: u16) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.not_before = in_days(-1).to_datetime();
    params.not_after = in_days(days.into()).to_datetime();
    Ok(params)
}

/// Returns the time in so many days from now.
fn in_days(days: i64) -> ASN1Time {
    let now = ASN1Time::now();
    ASN1Time::from_timestamp(now.timestamp() + days * 86_400).unwrap_or(now)
}

/// Returns the certificates that a list revokes.
fn revoked_before(pem: &str) -> Option<Vec<RevokedCertParams>> {
    let list = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, list) = CertificateRevocationList::from_der(&list).ok()?;
    let revoked = list.iter_revoked_certificates();
    Some(revoked.map(|revoked| revocation(revoked.raw_serial(), revoked.revocation_date)).collect())
}

fn revocation(serial: &[u8], time: ASN1Time) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: time.to_datetime(),
        reason_code: None,
        invalidity_date: None,
    }
}

/// Returns the line that says what was done with a certificate, and how long it is valid.
fn line(verb: &str, path: &Path) -> Result<String, CertsError> {
    let end = with_certificate(path, |certificate| certificate.validity().not_after)?;
    Ok(format!("{verb:<8} {}, valid until {}\n", path.display(), end.to_datetime().date()))
}

fn with_certificate<T>(path: &Path, get: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, CertsError> {
    let pem = read(path)?.unwrap_or_default();
    let parse = || {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some(get(&certificate))
    };
    parse().ok_or_else(|| CertsError::Malformed(path.to_owned()))
}

/// Returns the content of a file, if it exists.
fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertsError::File(path.to_owned(), error)),
    }
}

/// Makes a folder, if it is missing.
fn make_folder(path: &Path, mode: u32) -> Result<(), CertsError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(|error| CertsError::File(path.to_owned(), error)),
    }
}

/// Writes a file, and replaces the one that is there.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let write = || {
        // The old file is not overwritten: a server may be reading it.
        if let Err(error) = fs::remove_file(path)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| CertsError::File(path.to_owned(), error))
}
