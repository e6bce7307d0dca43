//! What handlers ask of storage, and what it answers.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::voucher::{Peer, Voucher};
use crate::lottery::row::RowError;
use crate::lottery::{AgencyId, Digest, Draw};
use crate::protocol::message::AgencyState;
use crate::protocol::status::Summary;

/// Numbers the clients of a server. Not a secret.
pub type ClientNumber = u64;

/// The secret that identifies a client to storage. A process that knows it can make requests as that client. It is random,
/// and only storage and the client's handler keep it. The acceptor draws it in memory that no child inherits, and otherwise
/// uses the client's [`ClientNumber`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClientToken(u128);

impl ClientToken {
    /// The length in bytes.
    pub const LEN: usize = 16;

    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }

    #[cfg(test)]
    pub(crate) fn random() -> Self {
        let mut bytes = [0; Self::LEN];
        crate::system::random::fill(&mut bytes).unwrap();
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for ClientToken {
    /// Hides the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientToken(..)")
    }
}

/// The head of one message in the queue. A request that is longer than a message goes in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartHead {
    pub client: ClientToken,
    /// Numbers the client's requests; the reply repeats it.
    pub id: u32,
    /// The request, in its first part only.
    pub request: Option<Request>,
    /// Whether this is the last part.
    pub last: bool,
}

/// What a handler asks of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Believe that the client is this peer. With TLS, this is a client's first request. Reply: `Proven`.
    Prove { peer: Peer, voucher: Voucher },
    /// Bind the client to an agency. Reply: `Opened`.
    OpenSession { agency: AgencyId },
    /// Store the rows that follow. In a session, `first` is the index of the first row among the agency's bets. Reply:
    /// `Stored`, or in a session `SessionStored`.
    StoreBets { first: Option<u64> },
    /// The agency has no more bets. Reply: `Ended`.
    EndAgency { agency: AgencyId },
    /// Send the page of the winning documents that begins at byte `offset`. Reply: `ResultPage` or `NotDrawn`.
    Result { agency: AgencyId, offset: u64 },
    /// Send the first page of the winning documents once the draw has been made. Reply: `ResultPage`.
    AwaitResult { agency: AgencyId },
    /// Report the state of the contest, and the counts of each agency from this index on. Reply: `StatusPage`.
    Status { counts_from: u16 },
}

/// The head of one reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyHead {
    /// The id of the request.
    pub id: u32,
    pub reply: Reply,
}

/// What storage answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Storage believes it.
    Proven,
    /// How many bets of the agency are on disk, their digest, and whether the agency may still send bets.
    Opened { stored: u64, digest: Digest, state: AgencyState },
    /// The bets of a client without a session are on disk.
    Stored,
    /// The bets of a session are on disk. `stored` is how many the agency had when the request was decided, `digest` is
    /// theirs.
    SessionStored { stored: u64, digest: Digest },
    /// The END is on disk.
    Ended,
    /// The draw has not been made.
    NotDrawn,
    /// A page of the documents follows. All pages together have `total` bytes.
    ResultPage { total: u64 },
    /// A [`Statistics`] follows, then an [`AgencyCount`] for each agency that fits into the page. The numbers are of all
    /// agencies.
    StatusPage { agencies: u16, ended: u16, bets: u64, draw: Option<Draw> },
    /// The request was refused and changed nothing.
    Refused(Refusal),
    /// The agency has opened another session, which replaces this one. This is the last reply. It may come at any time and
    /// answers no request, whatever its id.
    SessionReplaced,
}

/// One agency in a `StatusPage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgencyCount {
    /// How many of its bets are on disk.
    pub bets: u64,
    pub ended: bool,
}

/// Why storage refuses a request. `Display` gives the text that is sent to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    #[error(
        "no such agency: the agencies are 1 to {agencies}; others need another CLIENTS_AMOUNT, or after the draw a new contest"
    )]
    NoSuchAgency { agencies: u16 },
    #[error("agency {agency} has already sent END")]
    AgencyEnded { agency: AgencyId },
    #[error("the draw has already been made")]
    Drawn,
    /// The session's bets from `stored` to `first` are missing.
    #[error("the first bet would be number {first}, but the next to store is {stored}")]
    Gap { first: u64, stored: u64 },
    #[error("a bet of another agency than the session's")]
    OtherAgency,
    /// Clients know by the first words that they may send the same again.
    #[error("could not be stored: {}", Errno::from_raw(*.errno).desc())]
    Disk { errno: i32 },
    /// The server ends. The client may send the same again: the next server may find the file in its place.
    #[error("could not be stored: another program has moved or changed the file of bets")]
    FileChanged,
    /// Its winning documents would not fit into a RESULT.
    #[error("agency {agency} has as many winning bets as a result can list")]
    ResultFull { agency: AgencyId },
    /// A correct handler never makes such a request.
    #[error("malformed request")]
    Malformed,
}

/// The names of the refusals in STATUS.
pub const REASONS: [&str; 8] =
    ["no_such_agency", "agency_ended", "drawn", "gap", "other_agency", "disk", "malformed", "result_full"];

impl Refusal {
    /// Its name in [`REASONS`].
    fn reason(self) -> &'static str {
        match self {
            Self::NoSuchAgency { .. } => "no_such_agency",
            Self::AgencyEnded { .. } => "agency_ended",
            Self::Drawn => "drawn",
            Self::Gap { .. } => "gap",
            Self::OtherAgency => "other_agency",
            Self::Disk { .. } | Self::FileChanged => "disk",
            Self::Malformed => "malformed",
            Self::ResultFull { .. } => "result_full",
        }
    }
}

impl From<RowError> for Refusal {
    /// A correct handler sends whole rows only.
    fn from(_: RowError) -> Self {
        Self::Malformed
    }
}

/// What storage counts for operators. Each storage process counts from zero. It fits into a page of a reply pipe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Messages of bets that were acknowledged.
    pub(crate) batches: u64,
    /// Refused requests, in the order of [`REASONS`].
    pub(crate) refused: [u64; REASONS.len()],
    /// The bets of each group that was synced.
    pub(crate) group_bets: Summary,
    /// The duration of each sync, in seconds.
    pub(crate) sync_seconds: Summary,
}

impl Statistics {
    pub(crate) fn count_reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Stored | Reply::SessionStored { .. } => self.batches += 1,
            Reply::Refused(refusal) => {
                for (reason, count) in REASONS.iter().zip(&mut self.refused) {
                    *count += u64::from(*reason == refusal.reason());
                }
            }
            _ => {}
        }
    }

    /// Counts a group that was synced.
    #[expect(clippy::cast_precision_loss, reason = "a group has far fewer than 2^52 bets")]
    pub(crate) fn count_group(&mut self, bets: u64, sync: Duration) {
        self.group_bets.observe(bets as f64);
        self.sync_seconds.observe(sync.as_secs_f64());
    }
}
