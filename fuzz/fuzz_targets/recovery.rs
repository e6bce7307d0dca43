//! Recovery from any files: it never panics, and a second recovery has the same outcome.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use loteria::ipc::messages::{ClientToken, Reply, Request};
use loteria::lottery::AgencyId;
use loteria::server::storage::{Disk, FileChanged, Ledger, Rules};

#[derive(Clone, PartialEq, Debug)]
struct Files {
    bets: Vec<u8>,
    state: Option<Vec<u8>>,
}

struct MemoryDisk<'a>(&'a mut Files);

impl Disk for MemoryDisk<'_> {
    fn check(&self, _: u64) -> Result<(), FileChanged> {
        Ok(())
    }

    fn append(&mut self, rows: &[u8]) -> io::Result<()> {
        self.0.bets.extend_from_slice(rows);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.bets.truncate(length as usize);
        Ok(())
    }

    fn bets(&self) -> io::Result<impl Read> {
        Ok(&*self.0.bets)
    }

    fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.state.clone())
    }

    fn replace_state(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.state = Some(bytes.to_vec());
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const RULES: Rules = Rules { clients_amount: 4, winner_number: 7 };

/// Opens the files; returns the contest as text and the number of bytes cut off. With `draw`, makes the draw if it is due.
fn open(files: &mut Files, draw: bool) -> Option<(String, u64)> {
    let (mut ledger, cut) = Ledger::open(MemoryDisk(files), RULES).ok()?;
    if draw {
        ledger.commit().expect("the disk is good");
    }
    Some((format!("{:?}", ledger.contest()), cut))
}

fuzz_target!(|input: (&[u8], Option<&[u8]>)| {
    let (bets, state) = input;
    let before = Files { bets: bets.to_vec(), state: state.map(<[u8]>::to_vec) };
    let mut files = before.clone();
    let Some((contest, cut)) = open(&mut files, false) else {
        assert_eq!(files, before, "what is refused is left as it is");
        return;
    };
    assert_eq!(files.bets, bets[..bets.len() - cut as usize]);
    assert_eq!(open(&mut files, false), Some((contest, 0)));

    let (drawn, _) = open(&mut files, true).expect("it was taken up before");
    assert_eq!(open(&mut files, true), Some((drawn, 0)), "the draw is as it was");
    store_again(&mut files);
});

/// Stores the recovered rows again as a request: storage accepts every row that recovery accepts.
fn store_again(files: &mut Files) {
    let rows = files.bets.clone();
    if rows.is_empty() {
        return;
    }
    let mut empty = Files { bets: Vec::new(), state: None };
    let rules = Rules { clients_amount: u16::MAX, ..RULES };
    let (mut ledger, _) = Ledger::open(MemoryDisk(&mut empty), rules).expect("nothing is a contest");
    let [brings, ends] = [1, 2].map(|byte| ClientToken::from_bytes([byte; ClientToken::LEN]));
    ledger.take(brings, 1, Request::StoreBets { first: None }, &rows);
    let agency = AgencyId::new(1_u16).expect("it is one");
    ledger.take(ends, 2, Request::EndAgency { agency }, &[]);
    let committed = ledger.commit().expect("the disk is good");
    let mut bulk = Vec::new();
    let replies: Vec<Option<Reply>> =
        committed.answers.iter().map(|answer| ledger.reply(answer, &mut bulk)).collect();
    assert_eq!(replies, [Some(Reply::Stored), Some(Reply::Ended)]);
    drop(ledger);
    assert_eq!(empty.bets, rows);
}
