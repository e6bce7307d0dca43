//! A disk that is too small for some requests: what fits is stored, whatever else is in the group.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::ledger::Ledger;
use super::super::recovery::Rules;
use super::image::Image;
use super::workload::{WINNER, id, row};
use super::{Call, SimulatedDisk};
use crate::ipc::messages::{ClientToken, Refusal, Reply, Request};

/// The agencies of the sessions. Two sessions are of one agency, and send the same bets.
const SESSIONS: [u16; 3] = [1, 2, 2];
const RULES: Rules = Rules { clients_amount: 9, winner_number: WINNER };

#[derive(Debug, Clone)]
enum Ask {
    /// The next bets of a session.
    Frame(usize, u64),
    End(usize),
    /// The bets of a client without a session, of agency 3.
    Classic(u64),
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let session = 0..SESSIONS.len();
    let bets = prop_oneof![3 => 1..3_u64, 1 => 1..60_u64];
    prop_oneof![
        6 => (session.clone(), bets.clone()).prop_map(|(session, bets)| Ask::Frame(session, bets)),
        3 => bets.prop_map(Ask::Classic),
        1 => session.prop_map(Ask::End),
    ]
}

fn encode(agency: u16, bets: Range<u64>) -> Vec<u8> {
    bets.flat_map(|index| row(agency, index)).collect()
}

/// What must come of the requests, decided one by one.
#[derive(Debug, Clone, Default)]
struct Model {
    /// How long the file can be.
    room: usize,
    file: Vec<u8>,
    /// Of the agencies 0 to 3.
    stored: [u64; 4],
    ended: [bool; 4],
    /// How many bets each session has sent, and how many it had sent with the last frame that the disk refused.
    sent: [u64; SESSIONS.len()],
    needs: [u64; SESSIONS.len()],
}

impl Model {
    /// Returns the request, its rows, and what must be answered.
    fn ask(&mut self, ask: &Ask) -> (Request, Vec<u8>, Result<(), &'static str>) {
        match *ask {
            Ask::Frame(session, bets) => {
                let first = self.sent[session];
                self.sent[session] += bets;
                let rows = encode(SESSIONS[session], first..first + bets);
                (Request::StoreBets { first: Some(first) }, rows, self.frame(session, first))
            }
            Ask::Classic(bets) => {
                let rows = encode(3, 0..bets);
                (Request::StoreBets { first: None }, rows.clone(), self.store(3, &rows, bets))
            }
            Ask::End(session) => {
                let agency = usize::from(SESSIONS[session]);
                let missing = self.stored[agency] < self.needs[session] && !self.ended[agency];
                self.ended[agency] |= !missing;
                let request = Request::EndAgency { agency: id(SESSIONS[session]) };
                (request, vec![], if missing { Err("gap") } else { Ok(()) })
            }
        }
    }

    fn frame(&mut self, session: usize, first: u64) -> Result<(), &'static str> {
        let (agency, upto) = (SESSIONS[session], self.sent[session]);
        let stored = self.stored[usize::from(agency)];
        if first > stored {
            return Err("gap");
        }
        let stored_now = self.store(agency, &encode(agency, stored..upto), upto.saturating_sub(stored));
        if stored_now == Err("disk") {
            self.needs[session] = upto;
        }
        stored_now
    }

    fn store(&mut self, agency: u16, rows: &[u8], bets: u64) -> Result<(), &'static str> {
        if bets > 0 && self.ended[usize::from(agency)] {
            return Err("ended");
        }
        if self.file.len() + rows.len() > self.room {
            return Err("disk");
        }
        self.file.extend(rows);
        self.stored[usize::from(agency)] += bets;
        Ok(())
    }
}

fn outcome(reply: &Reply) -> Result<(), &'static str> {
    match reply {
        Reply::Refused(Refusal::Disk { .. }) => Err("disk"),
        Reply::Refused(Refusal::Gap { .. }) => Err("gap"),
        Reply::Refused(Refusal::AgencyEnded { .. }) => Err("ended"),
        Reply::Refused(refusal) => panic!("{refusal:?}"),
        _ => Ok(()),
    }
}

/// Lets the ledger decide and store a group, and compares the answers with those of the model.
fn serve(ledger: &mut Ledger<SimulatedDisk>, model: &mut Model, clients: &[ClientToken], group: &[Ask]) {
    let mut expected = Vec::new();
    for (number, ask) in (0..).zip(group) {
        let client = match ask {
            Ask::Frame(session, _) | Ask::End(session) => clients[*session],
            Ask::Classic(_) => ClientToken::random(),
        };
        let (request, rows, outcome) = model.ask(ask);
        ledger.take(client, number, request, &rows);
        expected.push(outcome);
    }
    let committed = ledger.commit().unwrap();
    let mut bulk = Vec::new();
    let replies = committed.answers.iter().map(|answer| ledger.reply(answer, &mut bulk).unwrap());
    let replies: Vec<Reply> = replies.collect();
    assert_eq!(replies.iter().map(outcome).collect::<Vec<_>>(), expected, "{group:?} {replies:?}");
    // Clients go on from what is stored.
    for (sent, agency) in model.sent.iter_mut().zip(SESSIONS) {
        *sent = (*sent).min(model.stored[usize::from(agency)]);
    }
}

#[test]
fn a_disk_is_not_asked_again_for_rows_that_cannot_fit_and_synced_once() {
    const REQUESTS: usize = 1_000;
    let row = row(1, 0);
    // With room for all rows but a hundred, and for no row.
    for room in [(REQUESTS - 100) * row.len(), 0] {
        let disk = SimulatedDisk::new(Image::default(), []);
        let (mut ledger, _) = Ledger::open(disk.clone(), RULES).unwrap();
        disk.limit(room);
        let earlier = disk.calls().len();
        for _ in 0..REQUESTS {
            ledger.take(ClientToken::random(), 1, Request::StoreBets { first: None }, &row);
        }
        ledger.commit().unwrap();
        let fitting = room / row.len();
        assert_eq!(ledger.contest().bets(), fitting as u64);
        let calls = disk.calls().split_off(earlier);
        let appends = calls.iter().filter(|call| matches!(call, Call::Append(_))).count();
        // The whole group, each row that fits, and one that does not.
        assert_eq!(appends, 1 + fitting + 1);
        assert_eq!(calls.iter().filter(|call| **call == Call::Sync).count(), 1);
        assert!(calls.len() <= appends + 4, "{}", calls.len());
    }
}

#[test]
fn a_client_that_is_gone_is_forgotten_after_its_group_which_may_be_decided_again() {
    let disk = SimulatedDisk::new(Image::default(), []);
    let (mut ledger, _) = Ledger::open(disk.clone(), RULES).unwrap();
    let client = ClientToken::random();
    for _ in 0..2 {
        ledger.take(client, 1, Request::OpenSession { agency: id(1) }, &[]);
        ledger.take(client, 2, Request::StoreBets { first: Some(0) }, &row(1, 0));
        ledger.forget(client);
        disk.fail_next_sync();
        let answers = ledger.commit().unwrap().answers;
        let replies = answers.iter().map(|answer| ledger.reply(answer, &mut Vec::new()).unwrap());
        assert_eq!(replies.map(|reply| outcome(&reply)).collect::<Vec<_>>(), [Ok(()), Err("disk")]);
    }
}

proptest! {
    #[test]
    fn what_fits_is_stored_and_only_what_does_not_fit_is_refused(
        groups in vec((vec(any_ask(), 1..9), 0..2_000_usize, prop::bool::weighted(0.1)), 1..9),
    ) {
        let disk = SimulatedDisk::new(Image::default(), []);
        let (mut ledger, _) = Ledger::open(disk.clone(), RULES).unwrap();
        let clients = SESSIONS.map(|_| ClientToken::random());
        for (client, agency) in clients.into_iter().zip(SESSIONS) {
            ledger.take(client, 0, Request::OpenSession { agency: id(agency) }, &[]);
        }
        ledger.commit().unwrap();
        let mut model = Model::default();
        let mut room = 0;
        for (group, more, sync_fails) in groups {
            room += more;
            disk.limit(room);
            model.room = room;
            // Only a group with rows is synced; if that fails, it is as if nothing fitted.
            let mut trial = model.clone();
            for ask in &group {
                trial.ask(ask).2.ok();
            }
            if sync_fails && trial.file.len() > model.file.len() {
                disk.fail_next_sync();
                model.room = model.file.len();
            }
            serve(&mut ledger, &mut model, &clients, &group);
            prop_assert_eq!(&disk.image().bets.cached(), &model.file);
            prop_assert!(disk.image().is_settled());
        }
        let (again, _) = Ledger::open(disk, RULES).unwrap();
        for agency in [1, 2, 3] {
            let stored = again.contest().stored(id(agency));
            prop_assert_eq!(stored, ledger.contest().stored(id(agency)));
            prop_assert_eq!(stored.unwrap().bets, model.stored[usize::from(agency)]);
        }
    }
}
