//! What a handler that was taken over puts into the request queue.

use common::hijack::{Hijacked, argument};
use common::processes::{are_idle, descriptors, send};
use common::{Setup, bets, status, until};
use nix::libc;
use nix::sys::signal::Signal;

#[test]
fn malformed_messages_between_requests_do_not_cost_a_sync_each() {
    let server = Setup::new().start();
    let storage = server.storage();
    let mut sessions: Vec<_> = (1..=4).map(|agency| (agency, server.session(agency).0)).collect();
    let others = server.handlers();
    let _client = server.connect();
    server.wait_for_handlers(5);
    let own = server.handlers().into_iter().find(|pid| !others.contains(pid)).unwrap();
    let Some(mut attacker) = Hijacked::attach(own) else { return };
    let is_queue = |target: &String| target.starts_with("/loteria-");
    let (queue, _) = descriptors(own).into_iter().find(|(_, target)| is_queue(target)).unwrap();
    let garbage = attacker.put(&[0xff; 8192]);
    // A time that has passed: if the queue is full, because other servers use up the user's bytes, this fails and never waits.
    let now = attacker.put(&[0; 16]);
    send(storage, Signal::SIGSTOP);
    for (agency, session) in &mut sessions {
        session.send_bets(0, &bets(*agency, 0..3));
        until("the handlers have sent all", || are_idle(&others));
        attacker.call(libc::SYS_mq_timedsend, &[argument(queue), garbage, 8192, 0, now]).unwrap();
    }
    send(storage, Signal::SIGCONT);
    for (_, session) in &mut sessions {
        session.expect_stored(3);
    }
    assert_eq!(status(server.port())["sync_seconds"]["count"], 1);
}
