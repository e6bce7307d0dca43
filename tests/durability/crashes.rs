//! `kill -9` under load, at random moments that the seed determines and at chosen places in the code. Acknowledged bets are
//! stored once and in order, refused ones are not stored, and the draw is made once.
//!
//! Each test runs with a few seeds. To run each with a hundred, which takes about ten minutes:
//!
//! `LOTERIA_SEEDS=100 cargo test --test durability crashes::`

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use common::agencies::{Agency, bets_of};
use common::bets::{WINNING, of_agency, parse_rows};
use common::load::{AGENCIES, BETS, Load, SESSIONS};
use common::oracle::{self, Unanswered, check_all, check_between, check_folder, whole_rows};
use common::{
    Running, RunningServer, Setup, await_within, bets, free_port, kind, processes, queues, rows, until,
    winner,
};
use nix::sys::signal::Signal;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const KILLS: usize = 5;
/// After this many deaths of the storage service the server is replaced by one without failpoints, because the sixth death
/// would end it.
const ENOUGH_DEATHS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Handler,
    Storage,
    Acceptor,
}

/// Runs a test with a few seeds, or with the number of seeds in `LOTERIA_SEEDS`.
fn for_each_seed(few: u64, run: impl Fn(u64, &mut ChaCha8Rng)) {
    let many = std::env::var("LOTERIA_SEEDS").ok().map(|seeds| seeds.parse().expect("a number of seeds"));
    for seed in 0..many.unwrap_or(few) {
        eprintln!("seed {seed}");
        run(seed, &mut ChaCha8Rng::seed_from_u64(seed));
    }
    queues::assert_no_names();
}

fn setup() -> Setup {
    let setup = Setup::of(AGENCIES).with("LOGGING_LEVEL", "INFO");
    setup.with("SERVER_PORT", free_port())
}

// Random moments.

/// Kills processes of these kinds while the load runs.
fn kill_at_random_moments(seed: u64, random: &mut ChaCha8Rng, victims: &[Victim]) {
    let setup = setup();
    let server = setup.start();
    let load = Load::new(server.port(), seed, false);
    let all = u64::from(BETS) * SESSIONS.len() as u64;
    let mut moments: Vec<u64> = (0..KILLS).map(|_| random.random_range(0..all)).collect();
    moments.sort_unstable();
    let server = load.run(|| {
        let mut server = server;
        for moment in moments {
            until("the load goes on", || load.acknowledged() >= moment || load.is_over());
            std::thread::sleep(Duration::from_micros(random.random_range(0..3000)));
            let victim = *victims.choose(random).unwrap();
            server = kill(victim, server, &load, random);
        }
        server
    });
    let (handlers, storages) = oracle::deaths(&setup);
    match *victims {
        [Victim::Handler] => assert!(handlers > 0 && storages == 0, "{handlers}, {storages}"),
        [Victim::Storage] => assert!(handlers == 0 && storages > 0, "{handlers}, {storages}"),
        _ => {}
    }
    let only_handlers = *victims == [Victim::Handler];
    check_all(server, &load, if only_handlers { Unanswered::Whole } else { Unanswered::FirstPart });
}

fn kill(victim: Victim, mut server: RunningServer, load: &Load, random: &mut ChaCha8Rng) -> RunningServer {
    match victim {
        Victim::Handler => {
            until("a handler lives", || {
                let handlers = server.handlers();
                let Some(handler) = handlers.choose(random) else { return load.is_over() };
                processes::send(*handler, Signal::SIGKILL);
                true
            });
            server
        }
        Victim::Storage => {
            processes::send(server.storage(), Signal::SIGKILL);
            server
        }
        Victim::Acceptor => {
            let start = Instant::now();
            server.kill9();
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
            check_between(&server.setup(), load);
            server.setup().start()
        }
    }
}

#[test]
fn no_bet_is_lost_or_doubled_when_handlers_are_killed_at_random_moments() {
    for_each_seed(2, |seed, random| kill_at_random_moments(seed, random, &[Victim::Handler]));
}

#[test]
fn no_bet_is_lost_or_doubled_when_storage_is_killed_at_random_moments() {
    for_each_seed(2, |seed, random| kill_at_random_moments(seed, random, &[Victim::Storage]));
}

#[test]
fn no_bet_is_lost_or_doubled_when_the_acceptor_is_killed_at_random_moments() {
    for_each_seed(2, |seed, random| kill_at_random_moments(seed, random, &[Victim::Acceptor]));
}

#[test]
fn no_bet_is_lost_or_doubled_when_anything_is_killed_at_random_moments() {
    let victims = [Victim::Handler, Victim::Storage, Victim::Acceptor];
    for_each_seed(2, |seed, random| kill_at_random_moments(seed, random, &victims));
}

// Chosen places in the code.

/// Each process kills itself at this place, after it has passed the place a number of times that the seed chooses from
/// `passes`.
fn kill_at(seed: u64, random: &mut ChaCha8Rng, place: &str, passes: std::ops::Range<u32>) {
    let passes = random.random_range(passes);
    let setup = setup().with("FAILPOINTS", format!("{place}={passes}*off->1*return"));
    let server = setup.start();
    let load = Load::new(server.port(), seed, false);
    let server = load.run(|| look_after(server, &load));
    let (handlers, storages) = oracle::deaths(&setup);
    let of_handlers = place == "request_part_sent";
    assert_eq!((handlers > 0, storages > 0), (of_handlers, !of_handlers), "{handlers}, {storages}");
    // No process dies within a write.
    check_all(server, &load, Unanswered::Whole);
}

/// Replaces the server by one without failpoints before too many deaths end it.
fn look_after(mut server: RunningServer, load: &Load) -> RunningServer {
    let setup = server.setup();
    let over = await_within(Duration::from_mins(2), || {
        if server.setup().has("FAILPOINTS") && oracle::deaths(&setup).1 >= ENOUGH_DEATHS {
            if server.try_wait().is_none() {
                server.signal(Signal::SIGTERM);
            }
            server.wait();
            server = setup.clone().without("FAILPOINTS").start();
        }
        load.is_over().then_some(())
    });
    over.expect("a load that ends");
    server
}

macro_rules! stages {
    ($($test:ident: $place:literal after $passes:expr;)*) => {
        $(
            #[test]
            fn $test() {
                if !cfg!(debug_assertions) {
                    eprintln!("skipped: only debug builds have failpoints");
                    return;
                }
                for_each_seed(1, |seed, random| kill_at(seed, random, $place, $passes));
            }
        )*
    };
}

stages! {
    no_bet_is_lost_or_doubled_when_handlers_are_killed_between_two_parts_of_a_request: "request_part_sent" after 0..2;
    no_bet_is_lost_or_doubled_when_storage_is_killed_with_the_mutex_held: "storage_has_mutex" after 1..2;
    no_bet_is_lost_or_doubled_when_storage_is_killed_after_the_write_and_before_the_sync: "bets_written" after 3..30;
    no_bet_is_lost_or_doubled_when_storage_is_killed_after_the_sync_and_before_the_reply: "bets_synced" after 3..30;
    no_bet_is_lost_or_doubled_when_storage_is_killed_after_it_wrote_the_next_state_file: "state_written" after 1..2;
    no_bet_is_lost_or_doubled_when_storage_is_killed_after_it_renamed_the_next_state_file: "state_renamed" after 0..2;
}

#[test]
fn a_next_state_file_that_was_not_renamed_is_removed() {
    if !cfg!(debug_assertions) {
        return;
    }
    let setup = setup().with("FAILPOINTS", "state_written=1*off->1*return");
    let mut server = setup.start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    client.send_frame(kind::END, b"");
    client.expect_closed();
    assert_eq!(server.session(1).1.state, 0, "the END was not acknowledged, and is not there");
    server.terminate();
    check_folder(&setup);
}

#[test]
fn a_draw_survives_a_storage_service_that_dies_before_it_replies() {
    for place in ["state_renamed=2*off", "storage_has_mutex=2*off"] {
        if !cfg!(debug_assertions) {
            return;
        }
        let setup = setup().with("CLIENTS_AMOUNT", 2).with("FAILPOINTS", format!("{place}->1*return"));
        let server = setup.start();
        server.session(1).0.store(0, &[winner(1, "11")]);
        server.session(1).0.end_agency();
        let (mut last, _) = server.session(2);
        last.send_frame(kind::END, b"");
        last.expect_closed();
        // Until the next storage service runs, a handler may reply that the draw has not been made. The session waits for it.
        assert_eq!(server.session(2).1.state, 2);
        server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"11");
        server.connect().refused(kind::BET, &winner(1, "12").record());
        assert_eq!(oracle::deaths(&setup), (0, 1));
        assert!(server.log().draws() <= 1);
    }
}

#[test]
fn even_stopped_children_of_an_acceptor_that_is_killed_are_gone_within_a_second() {
    let mut server = setup().start();
    let (_client, _) = server.session(1);
    server.wait_for_handlers(1);
    let children: Vec<i32> = server.handlers().into_iter().chain([server.storage()]).collect();
    // This member has a parent outside the group. Without it the kernel would send SIGHUP to the stopped members.
    let _member = Running::start(Command::new("sleep").arg("60").process_group(server.pid()));
    for child in &children {
        processes::send(*child, Signal::SIGSTOP);
    }
    let start = Instant::now();
    server.stop(Signal::SIGKILL);
    until("no child is left", || children.iter().all(|child| !server.processes().contains(child)));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

// Real agencies.

#[test]
fn agencies_whose_server_is_killed_under_load_store_each_bet_once_and_get_their_results() {
    const AMOUNTS: [u64; 3] = [20_000, 15_000, 25_000];
    let setup = setup().with("CLIENTS_AMOUNT", AMOUNTS.len());
    loteria::sample::write(3, &AMOUNTS, 11, &setup.path(".")).unwrap();
    let all = [1, 2, 3].map(|agency| bets_of(&setup, agency));
    let whole: usize = all.iter().map(|bets| rows(bets).len()).sum();
    let mut server = setup.start();
    let agencies = [1, 2, 3].map(|agency| Agency::start(&setup.path("."), agency, &server.address(), &[]));
    let mut in_the_middle = 0;
    for share in [20, 8, 3] {
        until("the agencies send bets", || server.bets_file().len() >= whole / share);
        server.kill9();
        in_the_middle += usize::from(whole_rows(server.bets_file()).len() < whole);
        server = setup.start();
    }
    assert!(in_the_middle > 0, "the server was never killed under load");
    for (mut agency, all) in agencies.into_iter().zip(&all) {
        let winners = all.iter().filter(|bet| bet.number == WINNING).count();
        assert!(winners > 0);
        let told = agency.succeed().value("consulta_ganadores", "cant_ganadores");
        assert_eq!(told, Some(winners.to_string()));
    }
    let stored = parse_rows(&server.bets_file());
    assert_eq!(stored.len() as u64, AMOUNTS.iter().sum::<u64>());
    for (agency, all) in (1..).zip(&all) {
        assert!(of_agency(&stored, agency) == *all, "agency {agency}: each bet once, in order");
    }
    server.terminate();
}
