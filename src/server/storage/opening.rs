//! Opens the files of a contest and recovers it, and logs what was found.

use std::mem;
use std::path::Path;

use super::contest::Contest;
use super::file_disk::{FileDisk, OpenError};
use super::ledger::Ledger;
use super::paths::{resolve, state_path};
use super::recovery::{RecoveryError, Rules};
use super::row_reader::{RESTORE, check_command};
use crate::ipc::control::FileIdentity;
use crate::logging::{Field, Level, Outcome, event, info};

/// Opens the files and recovers the contest. `known` is the file that an earlier storage process of this server had. Returns
/// none if the contest can't be used; the log then says why.
pub(super) fn open(
    path: &Path,
    known: Option<FileIdentity>,
    rules: Rules,
) -> Option<(Ledger<FileDisk>, FileIdentity)> {
    let disk = open_disk(path, known)?;
    let (identity, has_state) = (disk.identity, disk.has_state);
    let (ledger, cut) = Ledger::open(disk, rules).inspect_err(|error| log_refusal(path, error)).ok()?;
    if !has_state && ledger.contest().bets() > 0 {
        log_missing_state(path);
    }
    log_recovery(path, rules, ledger.contest(), cut);
    Some((ledger, identity))
}

fn open_disk(path: &Path, known: Option<FileIdentity>) -> Option<FileDisk> {
    let name = path.display();
    let mut warned = false;
    let disk = loop {
        match FileDisk::open(path, known) {
            // A program that only reads the file unlocks it when it ends. A restarted storage waits for that.
            Err(error @ OpenError::ReadLocked { .. }) if known.is_some() => {
                if !mem::replace(&mut warned, true) {
                    event(Level::Warning, "lock", Outcome::InProgress, &[("file", &name), ("error", &error)]);
                }
            }
            Err(error) => {
                event(Level::Critical, "recovery", Outcome::Fail, &[("file", &name), ("error", &error)]);
                return None;
            }
            Ok(disk) => break disk,
        }
    };
    if disk.links > 1 {
        let reason = "the file has several names; its state file is looked for beside this one only";
        let fields: [Field<'_>; 3] = [("file", &name), ("links", &disk.links), ("reason", &reason)];
        event(Level::Warning, "hard_links", Outcome::Success, &fields);
    }
    Some(disk)
}

fn log_refusal(path: &Path, error: &RecoveryError) {
    let in_state = matches!(error, RecoveryError::State(_));
    let file = if in_state { state_path(&resolve(path)) } else { path.to_owned() };
    let file = file.display();
    let log = |fields: &[Field<'_>]| event(Level::Critical, "recovery", Outcome::Fail, fields);
    match error {
        RecoveryError::Row { line, damage } => {
            let (advice, check) = (damage.advice(path, *line), check_command(path));
            let error = format_args!("{advice}; nothing was changed; `{check}` finds all such lines");
            log(&[("file", &file), ("line", line), ("error", &error)]);
        }
        RecoveryError::TornAfterDraw { line } => log(&[("file", &file), ("line", line), ("error", error)]),
        error => log(&[("file", &file), ("error", error)]),
    }
}

fn log_missing_state(path: &Path) {
    let state = state_path(&resolve(path));
    let reason = format!(
        "there are bets, but no ENDs and no draw are known; if the bets were copied here this is right, else stop the \
         server and {RESTORE}"
    );
    let fields: [Field<'_>; 2] = [("file", &state.display()), ("reason", &reason)];
    event(Level::Warning, "state_missing", Outcome::Success, &fields);
}

fn log_recovery(path: &Path, rules: Rules, contest: &Contest, cut: u64) {
    let path = path.display();
    if cut > 0 {
        event(Level::Warning, "torn_row_cut", Outcome::Success, &[("file", &path), ("bytes", &cut)]);
    }
    let (agencies, number) = (contest.agencies(), contest.winning_number);
    if (Rules { clients_amount: agencies, winner_number: number }) != rules {
        let reason = "the draw has been made; its agencies and number hold, not those of the configuration";
        event(
            Level::Warning,
            "configuration_ignored",
            Outcome::Success,
            &[("clients_amount", &agencies), ("lottery_winner_number", &number), ("reason", &reason)],
        );
    }
    info(
        "recovery",
        Outcome::Success,
        &[
            ("file", &path),
            ("bets", &contest.bets()),
            ("agencies", &agencies),
            ("ended", &contest.ended()),
            ("drawn", &contest.draw.is_some()),
        ],
    );
}
