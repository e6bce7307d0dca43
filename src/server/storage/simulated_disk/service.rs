//! The ledger as the storage service drives it, group by group, and an audit of each of its answers against the files.

use std::collections::HashMap;
use std::ops::Range;

use super::super::ledger::{Ledger, LedgerError};
use super::super::recovery::{RecoveryError, Rules};
use super::SimulatedDisk;
use super::workload::{AGENCIES, Ask, TRUTH, View, WINNER, asks, id};
use crate::ipc::codec::decode;
use crate::ipc::messages::{AgencyCount, ClientToken, Refusal, Reply, Request, Statistics};

/// A service's life, from its start on.
pub struct Service {
    disk: SimulatedDisk,
    ledger: Ledger<SimulatedDisk>,
    sessions: HashMap<char, ClientToken>,
    /// What is on disk, after all that was answered.
    pub known: View,
}

impl Service {
    /// Starts it. The configuration has changed since the draw, if that was made: it must not matter.
    pub fn start(disk: SimulatedDisk) -> Result<Self, RecoveryError> {
        let state = disk.image().state.cached().unwrap_or_default();
        let change = u16::from(String::from_utf8_lossy(&state).contains("winning_number"));
        let rules = Rules { clients_amount: AGENCIES + change, winner_number: WINNER + u32::from(change) };
        let (ledger, _) = Ledger::open(disk.clone(), rules)?;
        let image = disk.image();
        let known = View::of(&image);
        known.assert_is(ledger.contest());
        let lasts = image.is_settled() || disk.is_stopped() || image.bets.doubtful;
        assert!(lasts, "what was recovered may be lost");
        Ok(Self { disk, ledger, sessions: HashMap::new(), known })
    }

    /// Lets the ledger decide, store and answer a group, and audits each answer. A process that was stopped gives none.
    pub fn serve(&mut self, asks: &[Ask]) -> Result<Vec<Reply>, LedgerError> {
        let asked = (0..).zip(asks).filter(|(number, ask)| self.take(*number, ask));
        let asked: Vec<&Ask> = asked.map(|(_, ask)| ask).collect();
        let committed = self.ledger.commit()?;
        if self.disk.is_stopped() {
            return Ok(Vec::new());
        }
        let image = self.disk.image();
        assert!(image.is_settled(), "answers are given, but what they say may not last");
        let before = std::mem::replace(&mut self.known, View::of(&image));
        self.known.assert_keeps(&before);
        self.known.assert_is(self.ledger.contest());
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
        let mut bets = ask.bets();
        if let Ask::Classic(_) = ask {
            for (agency, bets) in &mut bets {
                bets.start = bets.start.max(self.known.count(*agency));
            }
        }
        let rows = TRUTH.encode(&bets);
        let request = match ask {
            Ask::Open((_, agency)) => Request::OpenSession { agency: id(*agency) },
            Ask::Bets(_, bets) => Request::StoreBets { first: Some(bets.start) },
            Ask::Classic(_) if rows.is_empty() => return false,
            Ask::Classic(_) => Request::StoreBets { first: None },
            Ask::End((_, agency)) | Ask::ClassicEnd(agency) => Request::EndAgency { agency: id(*agency) },
            Ask::Result(agency) => Request::Result { agency: id(*agency), offset: 0 },
            Ask::Status => Request::Status { counts_from: 0 },
        };
        let token = match ask {
            Ask::Bets((name, _), _) | Ask::End((name, _)) => self.sessions[name],
            _ => ClientToken::random(),
        };
        self.ledger.take(token, number, request, &rows);
        if let Ask::Open((name, _)) = ask {
            self.sessions.insert(*name, token);
        }
        true
    }

    /// Asserts that an answer is true, by what is on disk now and was `before`.
    fn audit(&self, ask: &Ask, reply: &Reply, bulk: &[u8], before: &View) {
        let now = &self.known;
        let bets = ask.bets();
        let holds = match (reply, ask) {
            (Reply::Opened { stored, digest, .. }, Ask::Open((_, agency))) => {
                *stored == now.count(*agency) && *digest == TRUTH.digest(*agency, *stored)
            }
            (Reply::SessionStored { stored, digest }, Ask::Bets(..)) => {
                let is_true = |(agency, bets): &(u16, Range<u64>)| {
                    (bets.end..=now.count(*agency)).contains(stored)
                        && *digest == TRUTH.digest(*agency, *stored)
                };
                bets.iter().all(is_true)
            }
            (Reply::Stored, Ask::Classic(_)) => {
                bets.iter().all(|(agency, bets)| now.count(*agency) >= bets.end)
            }
            (Reply::Ended, _) => ask.ends().is_some_and(|agency| now.has_ended(agency)),
            (Reply::Refused(refusal), _) => self.is_refused_rightly(ask, *refusal, before),
            (Reply::NotDrawn, Ask::Result(_)) => now.draw.is_none(),
            (Reply::ResultPage { total }, Ask::Result(agency)) => {
                now.draw.is_some() && bulk == TRUTH.winners(*agency) && *total == bulk.len() as u64
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
        let is_missing = || ask.bets().iter().any(|(agency, bets)| now.count(*agency) < bets.end);
        match (refusal, ask) {
            (Refusal::Disk { .. }, _) => match ask.ends() {
                Some(agency) => !now.has_ended(agency),
                // What was stored before is never refused for the disk's sake, and of what was refused nothing is stored.
                None => now.length == before.length && is_missing(),
            },
            (Refusal::Gap { first, stored }, Ask::Bets(..)) => first > stored,
            (Refusal::AgencyEnded { .. } | Refusal::Drawn, Ask::Bets(..) | Ask::Classic(_)) => is_missing(),
            (Refusal::NoSuchAgency { .. }, Ask::ClassicEnd(agency)) => *agency > AGENCIES,
            _ => false,
        }
    }

    /// Sends all requests again from the first on, as clients that know nothing do. The contest must end as expected.
    pub fn finish(&mut self) {
        let drawn = self.known.draw.is_some();
        let calls = self.disk.calls().len();
        for group in asks() {
            for reply in self.serve(&group).unwrap() {
                let failed = matches!(reply, Reply::Refused(Refusal::Disk { .. } | Refusal::Malformed));
                assert!(!failed, "{reply:?}");
            }
        }
        assert!(self.known.length == TRUTH.file.len(), "bets are missing: {:?}", self.known);
        assert!(self.known.draw.as_ref().unwrap()["winning_number"] == WINNER);
        assert!(!drawn || self.disk.calls().len() == calls, "something was written after the draw");
    }
}

fn assert_counts(now: &View, bulk: &[u8]) {
    let (_, mut bulk): (Statistics, _) = decode(bulk).unwrap();
    for agency in 1..=AGENCIES {
        let (count, rest): (AgencyCount, _) = decode(bulk).unwrap();
        assert_eq!(count, AgencyCount { bets: now.count(agency), ended: now.has_ended(agency) });
        bulk = rest;
    }
    assert!(bulk.is_empty());
}

/// Says in few words what a reply says.
pub fn words(reply: &Reply) -> String {
    match reply {
        Reply::Opened { stored, .. } => format!("opened with {stored}"),
        Reply::SessionStored { stored, .. } => format!("stored {stored}"),
        Reply::NotDrawn => "not drawn".to_owned(),
        Reply::ResultPage { .. } => "result".to_owned(),
        Reply::StatusPage { .. } => "status".to_owned(),
        Reply::Refused(Refusal::NoSuchAgency { .. }) => "no such agency".to_owned(),
        Reply::Refused(refusal) => refusal.to_string(),
        other => format!("{other:?}").to_lowercase(),
    }
}
