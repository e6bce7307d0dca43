//! The ledger as the storage service drives it, group by group, and an audit of each of its answers against the files.

use std::collections::HashMap;
use std::ops::Range;

use super::super::ledger::{Ledger, LedgerError};
use super::super::recovery::{RecoveryError, Rules};
use super::SimulatedDisk;
use super::workload::{AGENCIES, Ask, Truth, View, WINNER, groups, id};
use crate::ipc::codec::decode;
use crate::ipc::messages::{AgencyCount, ClientToken, Refusal, Reply, Request};

/// A service's life, from its start on.
pub struct Service<'a> {
    truth: &'a Truth,
    disk: SimulatedDisk,
    ledger: Ledger<SimulatedDisk>,
    sessions: HashMap<char, (u16, ClientToken)>,
    /// What is on disk, after all that was answered.
    pub known: View,
}

impl<'a> Service<'a> {
    /// Starts it. The configuration has changed since the draw, if that was made: it must not matter.
    pub fn start(disk: SimulatedDisk, truth: &'a Truth) -> Result<Self, RecoveryError> {
        let state = disk.image().state.cached().unwrap_or_default();
        let drawn = String::from_utf8_lossy(&state).contains("winning_number");
        let rules = if drawn {
            Rules { clients_amount: AGENCIES + 4, winner_number: WINNER + 1 }
        } else {
            Rules { clients_amount: AGENCIES, winner_number: WINNER }
        };
        let (ledger, _) = Ledger::open(disk.clone(), rules)?;
        let image = disk.image();
        let known = View::of(&image, truth);
        known.assert_is(ledger.contest(), truth);
        assert!(
            image.is_settled() || disk.is_stopped() || image.bets.is_doubtful(),
            "what was recovered does not last"
        );
        Ok(Self { truth, disk, ledger, sessions: HashMap::new(), known })
    }

    /// Has a group decided, stored and answered. Every answer is audited, unless the process was stopped: then there are
    /// none.
    pub fn serve(&mut self, asks: &[Ask]) -> Result<Vec<Reply>, LedgerError> {
        let mut asked = Vec::new();
        for (number, ask) in (0..).zip(asks) {
            if self.take(number, ask) {
                asked.push(ask);
            }
        }
        let committed = self.ledger.commit()?;
        if self.disk.is_stopped() {
            return Ok(Vec::new());
        }
        let image = self.disk.image();
        assert!(image.is_settled(), "answers are given, but what they say may not last");
        let before = std::mem::replace(&mut self.known, View::of(&image, self.truth));
        self.known.assert_keeps(&before);
        self.known.assert_is(self.ledger.contest(), self.truth);
        assert_eq!(committed.answers.len(), asked.len());
        let mut bulk = Vec::new();
        let mut replies = Vec::new();
        for (answer, ask) in committed.answers.iter().zip(asked) {
            let reply = self.ledger.reply(answer, &mut bulk).unwrap();
            self.audit(ask, &reply, &bulk, &before);
            replies.push(reply);
        }
        Ok(replies)
    }

    /// Puts a request into the group, if anything is left to ask: a classic client's bets that are stored are not sent
    /// again, as nothing would tell them from new ones.
    fn take(&mut self, number: u32, ask: &Ask) -> bool {
        let Some((request, bytes)) = self.request_of(ask) else { return false };
        let token = match ask {
            Ask::Bets(name, _) | Ask::End(name) => self.sessions[name].1,
            _ => ClientToken::random(),
        };
        self.ledger.take(token, number, request, &bytes);
        if let Ask::Open(name, agency) = ask {
            self.sessions.insert(*name, (*agency, token));
        }
        true
    }

    /// The request and its rows; none where nothing is left to ask.
    fn request_of(&self, ask: &Ask) -> Option<(Request, Vec<u8>)> {
        let request = match ask {
            Ask::Open(_, agency) => Request::OpenSession { agency: id(*agency) },
            Ask::Bets(name, bets) => {
                let rows = self.truth.encode(&[(self.sessions[name].0, bets.clone())]);
                return Some((Request::StoreBets { first: Some(bets.start) }, rows));
            }
            Ask::Classic(bets) => {
                let rest = |(agency, bets): &(u16, Range<u64>)| {
                    (*agency, bets.start.max(self.known.count(*agency))..bets.end)
                };
                let rows = self.truth.encode(&bets.iter().map(rest).collect::<Vec<_>>());
                return (!rows.is_empty()).then_some((Request::StoreBets { first: None }, rows));
            }
            Ask::End(_) | Ask::ClassicEnd(_) => Request::EndAgency { agency: id(self.ending(ask)?) },
            Ask::Result(agency) => Request::Result { agency: id(*agency), offset: 0 },
            Ask::Status => Request::Status { counts_from: 0 },
        };
        Some((request, vec![]))
    }

    /// Which agency it ends, if it is an END.
    fn ending(&self, ask: &Ask) -> Option<u16> {
        match ask {
            Ask::End(name) => Some(self.sessions[name].0),
            Ask::ClassicEnd(agency) => Some(*agency),
            _ => None,
        }
    }

    /// How many bets each agency has to have for all that it brings to be there.
    fn upto(&self, ask: &Ask) -> Vec<(u16, u64)> {
        match ask {
            Ask::Bets(name, bets) => vec![(self.sessions[name].0, bets.end)],
            Ask::Classic(bets) => bets.iter().map(|(agency, bets)| (*agency, bets.end)).collect(),
            _ => vec![],
        }
    }

    /// Asserts that an answer is true, by what is on disk now and was `before`.
    fn audit(&self, ask: &Ask, reply: &Reply, bulk: &[u8], before: &View) {
        let now = &self.known;
        let upto = self.upto(ask);
        let holds = match (reply, ask) {
            (Reply::Opened { stored, digest, .. }, Ask::Open(_, agency)) => {
                *stored == now.count(*agency) && *digest == self.truth.digest(*agency, *stored)
            }
            (Reply::SessionStored { stored, digest }, Ask::Bets(..)) => {
                let is_true = |(agency, upto): &(u16, u64)| {
                    (*upto..=now.count(*agency)).contains(stored)
                        && *digest == self.truth.digest(*agency, *stored)
                };
                upto.iter().all(is_true)
            }
            (Reply::Stored, Ask::Classic(_)) => upto.iter().all(|(agency, upto)| now.count(*agency) >= *upto),
            (Reply::Ended, _) => self.ending(ask).is_some_and(|agency| now.has_ended(agency)),
            (Reply::Refused(refusal), _) => self.is_refused_rightly(ask, *refusal, before),
            (Reply::NotDrawn, Ask::Result(_)) => now.draw.is_none(),
            (Reply::ResultPage { total }, Ask::Result(agency)) => {
                now.draw.is_some() && bulk == self.truth.winners(*agency) && *total == bulk.len() as u64
            }
            (Reply::StatusPage { agencies, ended, bets, .. }, Ask::Status) => {
                assert_counts(now, bulk);
                (*agencies, usize::from(*ended), *bets)
                    == (AGENCIES, now.ended.len(), now.counts.values().sum())
            }
            _ => false,
        };
        assert!(holds, "{ask:?} was answered {reply:?}, with {now:?} on disk, and {before:?} before");
    }

    fn is_refused_rightly(&self, ask: &Ask, refusal: Refusal, before: &View) -> bool {
        let now = &self.known;
        let is_missing = || self.upto(ask).iter().any(|(agency, upto)| now.count(*agency) < *upto);
        let ends = self.ending(ask);
        match (refusal, ask) {
            (Refusal::Disk { .. }, _) => match ends {
                Some(agency) => !now.has_ended(agency),
                // What was stored before is never refused for the disk's sake, and of what was refused nothing is stored.
                None => now.length == before.length && is_missing(),
            },
            (Refusal::Gap { first, stored }, Ask::Bets(..)) => first > stored,
            (Refusal::AgencyEnded { .. } | Refusal::Drawn, Ask::Bets(..) | Ask::Classic(_)) => is_missing(),
            (Refusal::NoSuchAgency { .. }, Ask::ClassicEnd(_)) => ends > Some(AGENCIES),
            _ => false,
        }
    }

    /// Sends all requests again, from the first on, as clients do that know nothing; all must come to the expected end.
    pub fn finish(&mut self) {
        let drawn = self.known.draw.is_some();
        let calls = self.disk.calls().len();
        for group in groups() {
            let asks: Vec<Ask> = group.into_iter().map(|(ask, _)| ask).collect();
            for reply in self.serve(&asks).unwrap() {
                assert!(
                    !matches!(reply, Reply::Refused(Refusal::Disk { .. } | Refusal::Malformed)),
                    "{reply:?}"
                );
            }
        }
        assert!(self.known.length == self.truth.file.len(), "bets are missing: {:?}", self.known);
        assert!(self.known.draw.as_ref().unwrap()["winning_number"] == WINNER);
        assert!(!drawn || self.disk.calls().len() == calls, "something was written after the draw");
    }
}

fn assert_counts(now: &View, mut bulk: &[u8]) {
    for agency in 1..=AGENCIES {
        let (count, rest): (AgencyCount, _) = decode(bulk).unwrap();
        assert_eq!(count, AgencyCount { bets: now.count(agency), ended: now.has_ended(agency) });
        bulk = rest;
    }
    assert!(bulk.is_empty());
}

/// What a reply says, in few words.
pub fn words(reply: &Reply) -> String {
    match reply {
        Reply::Opened { stored, .. } => format!("opened with {stored}"),
        Reply::Proven => "proven".into(),
        Reply::Stored => "stored".into(),
        Reply::SessionStored { stored, .. } => format!("stored {stored}"),
        Reply::Ended => "ended".into(),
        Reply::NotDrawn => "not drawn".into(),
        Reply::ResultPage { .. } => "result".into(),
        Reply::StatusPage { .. } => "status".into(),
        Reply::Refused(Refusal::NoSuchAgency { .. }) => "no such agency".into(),
        Reply::Statistics => "statistics".to_owned(),
        Reply::Refused(refusal) => refusal.to_string(),
        Reply::SessionReplaced => "replaced".into(),
    }
}
