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
use rustls::{InconsistentKeys, RootCertStore};
use thiserror::Error;

use super::provider;
use crate::system::read_whole;

pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";
pub(crate) const AUTHORITIES: &str = "ca.crt";
pub(crate) const REVOCATIONS: &str = "ca.crl";

/// The longest chain of certificates in bytes: a message of the handshake carries 64 KiB, with the length of each.
const MAX_CHAIN: usize = 60_000;

/// Why a file can't be used.
#[derive(Debug, Error)]
pub enum FolderError {
    #[error("{}: {error}{}", .file.display(), remedy(.error))]
    Read { file: PathBuf, error: io::Error },
    #[error("{}: {problem}", .file.display())]
    Content { file: PathBuf, problem: String },
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

/// The folder.
#[derive(Debug, Clone)]
pub struct TlsFolder(PathBuf);

impl TlsFolder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path of a file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// This program's certificate and key, which belong together.
    pub fn identity(&self) -> Result<CertifiedKey, FolderError> {
        let chain: Vec<CertificateDer<'static>> = self.items(CERTIFICATE, "certificate")?;
        if chain.iter().map(|certificate| certificate.len()).sum::<usize>() > MAX_CHAIN {
            return Err(self.problem(
                CERTIFICATE,
                "it has too many certificates: only this program's and those of its issuers belong there",
            ));
        }
        let bytes = self.read(KEY)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            self.problem(KEY, "it has no private key in PEM; an encrypted key must be decrypted first")
        })?;
        let key = provider().key_provider.load_private_key(key).map_err(|error| {
            self.problem(
                KEY,
                &format!("the key can't be used, only RSA, ECDSA (P-256, P-384) and Ed25519: {error}"),
            )
        })?;
        let identity = CertifiedKey::new(chain, key);
        match identity.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(self.problem(KEY, &format!("it is not the key of {}", self.path(CERTIFICATE).display())))
            }
            Err(error) => Err(self.problem(CERTIFICATE, &error)),
        }
    }

    /// The certificates of the authorities.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        self.items(AUTHORITIES, "certificate")
    }

    /// The authorities, in the type of rustls.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, FolderError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.authorities()? {
            roots.add(certificate).map_err(|error| self.problem(AUTHORITIES, &error))?;
        }
        Ok(Arc::new(roots))
    }

    /// The revocation lists; none if there is no such file.
    pub fn revocations(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, FolderError> {
        match self.items(REVOCATIONS, "revocation list") {
            Err(FolderError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            lists => lists,
        }
    }

    /// The error about the content of a file.
    pub(crate) fn problem(&self, name: &str, problem: &(impl ToString + ?Sized)) -> FolderError {
        FolderError::Content { file: self.path(name), problem: problem.to_string() }
    }

    /// All PEM sections of a file that are of one kind: at least one.
    fn items<T: PemObject>(&self, name: &str, what: &str) -> Result<Vec<T>, FolderError> {
        let bytes = self.read(name)?;
        let items = T::pem_slice_iter(&bytes).collect::<Result<Vec<T>, _>>();
        match items {
            Ok(items) if items.is_empty() => Err(self.problem(name, &format!("it has no {what} in PEM"))),
            Ok(items) => Ok(items),
            Err(error) => Err(self.problem(name, &format!("it is not PEM: {error}"))),
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        let file = self.path(name);
        File::open(&file).and_then(read_whole).map_err(|error| FolderError::Read { file, error })
    }
}
