//! A folder with certificates, all of them PEM:
//!
//! | file | contents |
//! |---|---|
//! | `tls.crt` | this program's certificate, then those of its issuers below the authority |
//! | `tls.key` | the private key of `tls.crt` |
//! | `ca.crt` | the authorities whose certificates are accepted from the other side |
//! | `ca.crl` | the certificates that the authorities have revoked; may be missing. Only the server reads it. |
//!
//! `loteria certs` makes such folders.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};

use super::provider;
use crate::system::read_whole;

pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";
pub(crate) const AUTHORITIES: &str = "ca.crt";
pub(crate) const REVOCATIONS: &str = "ca.crl";

/// The longest chain of certificates in bytes: a message of the handshake carries 64 KiB, with the length of each.
const MAX_CHAIN: usize = 60_000;

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .file.display())]
pub struct FolderError {
    file: PathBuf,
    problem: String,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "; TLS_DIR must be a folder with tls.crt, tls.key and ca.crt, as `loteria certs` makes them"
        }
        ErrorKind::PermissionDenied => "; the user of this program must be able to read it",
        _ => "",
    }
}

/// A folder with certificates.
#[derive(Debug, Clone)]
pub struct TlsFolder(PathBuf);

impl TlsFolder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Returns the path of a file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads this program's certificate and key, which belong together.
    pub fn identity(&self) -> Result<CertifiedKey, FolderError> {
        let chain: Vec<CertificateDer<'static>> = self.items(CERTIFICATE, "certificate")?;
        if chain.iter().map(|certificate| certificate.len()).sum::<usize>() > MAX_CHAIN {
            return Err(self.problem(
                CERTIFICATE,
                "it has too many certificates: only this program's and those of its issuers belong there",
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.read(KEY)?).map_err(|_| {
            self.problem(KEY, "it has no private key in PEM; an encrypted key must be decrypted first")
        })?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                self.problem(KEY, &format!("it is not the key of {}", self.path(CERTIFICATE).display()))
            }
            Error::InvalidCertificate(_) => self.problem(CERTIFICATE, &error),
            _ => {
                let only = "the key can't be used, only RSA, ECDSA (P-256, P-384) and Ed25519";
                self.problem(KEY, &format!("{only}: {error}"))
            }
        })
    }

    /// Reads the certificates of the authorities.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        self.items(AUTHORITIES, "certificate")
    }

    /// Reads the authorities as rustls wants them.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, FolderError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.authorities()? {
            roots.add(certificate).map_err(|error| self.problem(AUTHORITIES, &error))?;
        }
        Ok(Arc::new(roots))
    }

    /// Reads the revocation lists. There are none if the file is missing.
    pub fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, FolderError> {
        match self.path(REVOCATIONS).try_exists() {
            Ok(false) => Ok(Vec::new()),
            _ => self.items(REVOCATIONS, "revocation list"),
        }
    }

    /// Returns the error that a file has this problem.
    pub(crate) fn problem(&self, name: &str, problem: &(impl ToString + ?Sized)) -> FolderError {
        FolderError { file: self.path(name), problem: problem.to_string() }
    }

    /// Reads the PEM sections of a file that are of one kind. Fails if there is none.
    fn items<T: PemObject>(&self, name: &str, what: &str) -> Result<Vec<T>, FolderError> {
        let bytes = self.read(name)?;
        let items: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
        let items = items.map_err(|error| self.problem(name, &format!("it is not PEM: {error}")))?;
        if items.is_empty() {
            return Err(self.problem(name, &format!("it has no {what} in PEM")));
        }
        Ok(items)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        let read = File::open(self.path(name)).and_then(read_whole);
        read.map_err(|error| self.problem(name, &format!("{error}{}", remedy(&error))))
    }
}
