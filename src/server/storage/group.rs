//! The group: the requests whose rows one sync puts on disk. It keeps what is needed to decide them again.

use super::answer::Answer;
use crate::ipc::messages::Refusal;
use crate::lottery::AgencyId;

/// The size of a group, in bytes, from which on it takes no more requests.
const LIMIT: usize = 1024 * 1024;
/// The share of a request in a group's size, besides its rows.
const REQUEST_SIZE: usize = 64;

/// What a client may still do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// Open a session, or make one change.
    #[default]
    New,
    /// Change this agency.
    Session {
        agency: AgencyId,
        /// The session may not end the agency while fewer bets are stored: the disk refused its bets up to this number.
        needs: u64,
    },
    /// Only ask: it has made its one change.
    Spent,
}

/// The requests that were decided and not committed yet.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) requests: Vec<Taken>,
    /// The rows to store, of all requests.
    pub(super) rows: Vec<u8>,
    /// The rows that are not to be stored: they are stored already, or were refused.
    other_rows: Vec<u8>,
    pub(super) ends: Vec<AgencyId>,
    /// Set if the rows of each request are written when it is decided.
    pub(super) alone: Option<WriteAlone>,
}

/// A request of the group.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) answer: Answer,
    /// The client's role before the request.
    pub(super) role: Role,
    /// The length of its rows that are not to be stored; these come first.
    other_rows: usize,
    /// The length of its rows to store.
    rows: usize,
}

/// The rows of each request are written alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteAlone {
    /// Rows of this many bytes or more are refused without a try: they did not fit before, and a full disk may need
    /// milliseconds to say so.
    pub(super) refused_len: usize,
    pub(super) refusal: Refusal,
}

/// A failed write, and how many requests were refused for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    pub(super) requests: usize,
}

impl Group {
    /// Tells whether the group should be committed before it takes more.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() + self.other_rows.len() + self.requests.len() * REQUEST_SIZE >= LIMIT
    }

    /// Tells whether any request has rows, stored already or not.
    pub(super) fn has_bets(&self) -> bool {
        self.rows.len() + self.other_rows.len() > 0
    }

    /// Tells whether several requests have rows, stored already or not.
    pub(super) fn has_several_with_bets(&self) -> bool {
        self.requests.iter().filter(|taken| taken.rows + taken.other_rows > 0).count() > 1
    }

    /// Adds a request that was decided. `rows` are all its rows, of which the last `stored` bytes are in the group already.
    pub(super) fn push(&mut self, answer: Answer, role: Role, rows: &[u8], stored: usize) {
        let others = rows.get(..rows.len() - stored).unwrap_or_default();
        self.other_rows.extend_from_slice(others);
        self.requests.push(Taken { answer, role, other_rows: others.len(), rows: stored });
    }

    /// Calls `take` for each request, with all its rows.
    pub(super) fn into_requests(self, mut take: impl FnMut(Answer, &[u8])) {
        let (mut rows, mut others) = (&*self.rows, &*self.other_rows);
        for taken in self.requests {
            let (own_others, own_rows);
            (own_others, others) = others.split_at(taken.other_rows);
            (own_rows, rows) = rows.split_at(taken.rows);
            take(taken.answer, &[own_others, own_rows].concat());
        }
    }

    /// Empties the group, and returns its answers.
    pub(super) fn finish(&mut self) -> Vec<Answer> {
        for rows in [&mut self.rows, &mut self.other_rows] {
            rows.clear();
            rows.shrink_to(2 * LIMIT);
        }
        self.ends.clear();
        self.requests.drain(..).map(|taken| taken.answer).collect()
    }
}
