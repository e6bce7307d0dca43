//! Compares the stored bets with the agency's file: the server tells how many bets are stored, and their digest.

use super::bets_file::BetsFile;
use super::error::{AgencyError, NEW_CONTEST};
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

    /// Notes that the bets before this index are being sent.
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
        match (file.digest_of(stored)?, digest) {
            (Some(own), Some(digest)) if own == digest => self.equal = stored,
            (Some(_), None) => {}
            (own, _) => return Err(self.mismatch(file, stored, own.is_none())),
        }
        Ok(())
    }

    fn mismatch(&self, file: &BetsFile, stored: u64, is_short: bool) -> AgencyError {
        // The server may have lost bets that were equal.
        let equal = if self.equal < stored { self.equal } else { 0 };
        let (next, rows) = (equal + 1, file.taken());
        let difference = if is_short {
            format!("{stored} are stored, but it has only {rows}")
        } else if next == stored {
            format!("bet {stored} differs")
        } else {
            format!("one of the bets {next} to {stored} differs, a digest does not tell which")
        };
        let sent = match (equal, self.sent) {
            (_, 0) => {
                format!("nothing of it was sent. Use the file that this contest began with; {NEW_CONTEST}")
            }
            (_, sent) if sent <= equal => format!("its first {equal} are stored, no other was sent"),
            (0, sent) => format!("its first {sent} were sent and may be stored, no other was sent"),
            (_, sent) => format!(
                "its first {equal} are stored, {next} to {sent} were sent and may be stored, no other was sent"
            ),
        };
        AgencyError::OtherBets { file: file.path(), difference, sent }
    }
}
