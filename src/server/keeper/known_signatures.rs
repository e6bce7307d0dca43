//! Remembers which signatures were valid, so that each is verified once. With each handshake come the signatures of the
//! authority on the client's certificate and on the revocation list. Verifying them took half of the keeper's time.
//!
//! Dates, names and revocations are checked each time. Only signatures of authorities are remembered: webpki verifies a chain
//! of certificates from the authority downwards, and nobody else can make one that it finds valid.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// How many signatures are remembered. When there are so many, all are forgotten.
const MAX_KNOWN: usize = 100_000;

/// Wraps each algorithm, so that it remembers the signatures that it has found valid. The wrappers are never freed.
pub(super) fn remembering(algorithms: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    let wrap = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
        let known = Remembering { algorithm: *algorithm, known: Mutex::default() };
        &*Box::leak(Box::new(known)) as &'static dyn SignatureVerificationAlgorithm
    };
    let all: Vec<_> = algorithms.all.iter().map(wrap).collect();
    WebPkiSupportedAlgorithms { all: Vec::leak(all), ..algorithms }
}

#[derive(Debug)]
struct Remembering {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    /// Hashes of key, message and signature. rustls asks for a mutex: the keeper has one thread, and never waits for it.
    known: Mutex<HashSet<[u8; 32]>>,
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let hash = hash_of([key, message, signature]);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&hash) {
            self.algorithm.verify_signature(key, message, signature)?;
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(hash);
        }
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

fn hash_of(parts: [&[u8]; 3]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Counts how often it verifies. The only valid signature is `good`.
    #[derive(Debug, Default)]
    struct Counting(AtomicU32);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(&self, _: &[u8], _: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if signature == b"good" { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            rustls::pki_types::alg_id::ED25519
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            rustls::pki_types::alg_id::ED25519
        }
    }

    #[test]
    fn only_the_same_valid_signature_of_the_same_key_is_known() {
        let counting: &Counting = Box::leak(Box::default());
        let algorithms: &[&dyn SignatureVerificationAlgorithm] = Box::leak(Box::new([counting as _]));
        let all = remembering(WebPkiSupportedAlgorithms { all: algorithms, mapping: &[] }).all;
        for (key, message, signature, is_valid, verified) in [
            ("key", "message", "good", true, 1),
            ("key", "message", "good", true, 1),
            ("key", "messageg", "ood", false, 2),
            ("keym", "essage", "good", true, 3),
            ("key", "message", "bad", false, 4),
            ("key", "message", "bad", false, 5),
        ] {
            let result = all[0].verify_signature(key.as_bytes(), message.as_bytes(), signature.as_bytes());
            assert_eq!(result.is_ok(), is_valid, "{key} {message} {signature}");
            assert_eq!(counting.0.load(Ordering::Relaxed), verified, "{key} {message} {signature}");
        }
    }
}
