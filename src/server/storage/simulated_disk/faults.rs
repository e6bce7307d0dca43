//! Every step fails, and the service goes on, or ends without an answer.

use nix::errno::Errno;

use super::super::recovery::RecoveryError;
use super::crashes::{Bounds, START, record, recover_from_all};
use super::image::Image;
use super::service::Service;
use super::workload::{TRUTH, View, asks};
use super::{Call, SimulatedDisk, Trouble};
use crate::ipc::messages::{Refusal, Reply};

/// Lists the ways in which a call fails: after each of its steps but the last. A write may fail after its last step too.
fn ways_to_fail(call: Call) -> Vec<Trouble> {
    let all = call.steps() + usize::from(matches!(call, Call::Append(_)));
    let errno = |done| if done % 2 == 0 { Errno::ENOSPC } else { Errno::EIO };
    (0..all).map(|done| Trouble::Fail { done, errno: errno(done) }).collect()
}

/// Serves all groups. A group that is refused is sent again, and must then be taken. Returns how many were refused, and the
/// number of the group with which the service ended, if it ended with an error.
fn serve_all(service: &mut Service) -> (usize, Option<usize>) {
    let mut refused = 0;
    for (number, group) in asks().iter().enumerate() {
        let Ok(replies) = service.serve(group) else { return (refused, Some(number)) };
        if replies.iter().any(is_refused) {
            refused += 1;
            let again = service.serve(group).unwrap();
            assert!(!again.iter().any(is_refused), "{again:?}");
        }
    }
    (refused, None)
}

fn is_refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused(Refusal::Disk { .. }))
}

/// Returns all that can be found after an error, except pages that a failed sync has marked as clean and that a process finds
/// before they are dropped: no process can tell these from good ones.
fn worlds_after_error(image: &Image) -> Vec<Image> {
    if image.bets.doubtful { image.survivors() } else { image.worlds() }
}

#[test]
fn what_fails_once_is_refused_and_undone_and_the_next_group_is_taken() {
    let (calls, _) = record();
    for (at, call) in calls.iter().copied().enumerate().skip(START) {
        for trouble in ways_to_fail(call) {
            let disk = SimulatedDisk::new(Image::default(), [(at, trouble)]);
            let mut service = Service::start(disk.clone()).unwrap();
            let (refused, ended) = serve_all(&mut service);
            let expected = match call {
                // A folder whose sync fails is synced once more, and the rows of several requests are written once more.
                Call::SyncFolder => 0,
                Call::Append(_) => refused.min(1),
                _ => 1,
            };
            assert_eq!((refused, ended), (expected, None), "call {at}, {call:?}, {trouble:?}");
            service.finish();
            assert!(disk.image().is_settled());
        }
    }
}

#[test]
fn where_nobody_knows_what_is_on_disk_nothing_is_answered() {
    let (calls, views) = record();
    for (at, call) in calls.into_iter().enumerate().skip(START) {
        let first: Vec<Trouble> = match call {
            Call::Append(bytes) => {
                let ways = ways_to_fail(call);
                [0, bytes / 2, bytes].map(|done| ways[done]).into()
            }
            Call::Sync | Call::SyncFolder => ways_to_fail(call),
            _ => continue,
        };
        // A cut follows, or the folder's second sync; neither of these works.
        let second = if call == Call::SyncFolder { call } else { Call::Cut };
        for first in first {
            for second in ways_to_fail(second) {
                let disk = SimulatedDisk::new(Image::default(), [(at, first), (at + 1, second)]);
                let mut service = Service::start(disk.clone()).unwrap();
                let (refused, ended_at) = serve_all(&mut service);
                let number =
                    ended_at.unwrap_or_else(|| panic!("{call:?} {first:?}, then {second:?}: went on"));
                assert_eq!(refused, 0, "{call:?} {first:?}, then {second:?}");
                let bounds = Bounds { least: service.known, most: views[number + 1].clone() };
                recover_from_all(worlds_after_error(&disk.image()), &bounds);
            }
        }
    }
}

#[test]
fn a_recovery_that_fails_leaves_all_to_the_next_one() {
    let mut torn = Image::default();
    torn.bets.append(&TRUTH.file[..TRUTH.file.len() / 2]);
    for synced in [false, true] {
        if synced {
            torn.bets.sync();
        }
        let disk = SimulatedDisk::new(torn.clone(), []);
        let found = Service::start(disk.clone()).unwrap().known;
        let nothing = View::of(&Image::default());
        let bounds = Bounds { least: if synced { found.clone() } else { nothing }, most: found };
        let calls = disk.calls();
        assert_eq!(calls, [Call::Cut, Call::ReplaceState, Call::Sync, Call::SyncFolder]);
        for (at, call) in calls.into_iter().enumerate() {
            for trouble in ways_to_fail(call) {
                let disk = SimulatedDisk::new(torn.clone(), [(at, trouble)]);
                assert!(matches!(Service::start(disk.clone()), Err(RecoveryError::Io(_))));
                recover_from_all(worlds_after_error(&disk.image()), &bounds);
            }
        }
    }
}
