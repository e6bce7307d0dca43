//! Compares the stored bets with the agency's file: the server tells how many bets are stored, and their digest.

use super::bets_file::BetsFile;
use super::error::{AgencyError, Mismatch};
use crate::lottery::Digest;
use crate::protocol::message::SESSION_VERSION;

/// What this run knows of its bets, over all of its sessions.
pub(super) struct Comparison {
    /// The version of the session messages. Version 1 has no digests.
    pub(super) version: u8,
    /// How many bets of the file are stored: the server had their digest.
    equal: u64,
    /// How many bets of the file were sent, or were stored before.
    sent: u64,
}

impl Comparison {
    pub(super) fn new() -> Self {
        Self { version: SESSION_VERSION, equal: 0, sent: 0 }
    }

    /// The bets before this index are being sent.
    pub(super) fn sends(&mut self, end: u64) {
        self.sent = self.sent.max(end);
    }

    /// Checks that the `stored` bets are the first ones of the file, and reads on in the file as far as that takes. Without
    /// digests only the file's length is checked.
    pub(super) fn check(
        &mut self,
        file: &mut BetsFile,
        stored: u64,
        digest: Option<Digest>,
    ) -> Result<(), AgencyError> {
        if digest.is_some() != (self.version > 1) {
            return Err(AgencyError::WrongReply);
        }
        let own = file.digest_of(stored)?;
        if own.is_none() || digest.is_some_and(|digest| own != Some(digest)) {
            let rows = own.is_none().then(|| file.taken());
            // The server may have lost bets that were equal.
            let equal = if self.equal < stored { self.equal } else { 0 };
            let (file, sent) = (file.path(), self.sent);
            return Err(AgencyError::OtherBets(Mismatch { file, stored, rows, equal, sent }));
        }
        if digest.is_some() {
            self.equal = stored;
        }
        Ok(())
    }
}
