//! Stopped at every step, reopened with everything that could be left.

use std::collections::BTreeSet;

use super::super::recovery::RecoveryError;
use super::image::Image;
use super::service::{Service, words};
use super::workload::{Ask, TRUTH, View, asks, groups};
use super::{Call, SimulatedDisk, Trouble};

/// What may be found after a crash.
pub struct Bounds {
    /// What was answered.
    pub least: View,
    /// And what was in flight.
    pub most: View,
}

/// How many calls the first start makes.
pub const START: usize = 3;

/// Serves all groups on a good disk. Returns the calls that were made, and what was on disk at the start and after each group.
pub fn record() -> (Vec<Call>, Vec<View>) {
    let disk = SimulatedDisk::new(Image::default(), []);
    let mut service = Service::start(disk.clone()).unwrap();
    assert_eq!(disk.calls().len(), START);
    let mut views = vec![service.known.clone()];
    for group in asks() {
        service.serve(&group).unwrap();
        views.push(service.known.clone());
    }
    (disk.calls(), views)
}

/// Serves until the disk stops. Returns its image, and the bounds of what may be found then.
fn crash(views: &[View], at: usize, done: usize) -> (Image, Bounds) {
    let disk = SimulatedDisk::new(Image::default(), [(at, Trouble::Stop { done })]);
    let mut least = views[0].clone();
    let mut most = least.clone();
    if let Ok(mut service) = Service::start(disk.clone()) {
        for (group, after) in asks().iter().zip(&views[1..]) {
            most = after.clone();
            // An error is no answer either.
            drop(service.serve(group));
            if disk.is_stopped() {
                break;
            }
            least = service.known.clone();
        }
    }
    assert!(disk.is_stopped(), "call {at} was made");
    (disk.image(), Bounds { least, most })
}

/// Recovers from every world, and from every world that is left where recovery itself is stopped, and so on. Returns how
/// many there were.
pub fn recover_from_all(worlds: Vec<Image>, bounds: &Bounds) -> usize {
    let mut seen = BTreeSet::from_iter(worlds);
    let mut left: Vec<Image> = seen.iter().cloned().collect();
    let mut recovered = BTreeSet::new();
    while let Some(world) = left.pop() {
        let disk = SimulatedDisk::new(world.clone(), []);
        let mut service = Service::start(disk.clone()).unwrap();
        service.known.assert_keeps(&bounds.least);
        service.known.assert_within(&bounds.most);
        let calls = disk.calls();
        // What comes after depends on what was recovered alone.
        if recovered.insert(disk.image()) {
            service.finish();
        }
        for (at, call) in calls.into_iter().enumerate() {
            for done in 0..=call.steps() {
                let disk = SimulatedDisk::new(world.clone(), [(at, Trouble::Stop { done })]);
                let started = Service::start(disk.clone()).is_ok();
                assert!(disk.is_stopped() && !started, "{call:?}");
                // A stop that left all as it was has no other survivors than the world has, which are there already.
                let image = disk.image();
                if image != world {
                    left.extend(image.worlds().into_iter().filter(|world| seen.insert(world.clone())));
                }
            }
        }
    }
    seen.len()
}

#[test]
fn the_requests_are_answered_as_they_should_be() {
    let disk = SimulatedDisk::new(Image::default(), []);
    let mut service = Service::start(disk).unwrap();
    for group in groups() {
        let (asks, expected): (Vec<Ask>, Vec<&str>) = group.into_iter().unzip();
        let replies = service.serve(&asks).unwrap();
        assert_eq!(replies.iter().map(words).collect::<Vec<_>>(), expected, "{asks:?}");
    }
    service.finish();
}

#[test]
fn what_was_answered_outlasts_a_crash_at_every_step() {
    let (calls, views) = record();
    let mut worlds = 0;
    for (at, call) in calls.into_iter().enumerate() {
        let mut left = Vec::new();
        let mut bounds = None;
        for done in 0..=call.steps() {
            let (image, found) = crash(&views, at, done);
            left.push(image.clone());
            // What an earlier stop leaves of an append, the last one leaves too.
            if done == call.steps() || !matches!(call, Call::Append(_)) {
                left.extend(image.survivors());
            }
            bounds = Some(found);
        }
        worlds += recover_from_all(left, &bounds.unwrap());
    }
    assert!(worlds > 2 * TRUTH.file.len(), "only {worlds} worlds were tried");
}

#[test]
fn after_the_draw_each_bit_of_the_bets_is_under_the_seal() {
    let disk = SimulatedDisk::new(Image::default(), []);
    Service::start(disk.clone()).unwrap().finish();
    let drawn = disk.image();
    for bit in 0..8 * TRUTH.file.len() {
        let mut image = drawn.clone();
        image.bets.flip(bit);
        let disk = SimulatedDisk::new(image, []);
        let refused = Service::start(disk.clone()).err();
        let expected = matches!(
            refused,
            Some(
                RecoveryError::Row { .. }
                    | RecoveryError::Sealed { .. }
                    | RecoveryError::TornAfterDraw { .. }
            )
        );
        assert!(expected, "bit {bit}: {refused:?}");
        assert!(disk.calls().is_empty(), "bit {bit}: something was changed");
    }
}
