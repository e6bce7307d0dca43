//! A disk that is full or fails: an ERROR only if the bets are known not to be stored, no reply if this is unknown, and only
//! whole rows of accepted bets in the file.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::bets::{of_agency, parse_rows};
use common::client::bets_frame;
use common::disks::Mount;
use common::load::{AGENCIES, Load};
use common::oracle::{Unanswered, check_all, check_folder, logs};
use common::{Bet, RunningServer, Setup, bets, free_port, kind, output, records, rows, status, winner};

/// A setup for two agencies with these failpoints. None in a release build, which has no failpoints.
fn with(failpoints: &str) -> Option<Setup> {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have failpoints");
        return None;
    }
    Some(Setup::of(2).with("FAILPOINTS", failpoints))
}

/// Waits until the server has ended with an error. One line must say why.
#[track_caller]
fn gave_up(server: &mut RunningServer) {
    let status = server.wait();
    assert_eq!(status.code(), Some(1));
    assert_eq!(server.log().lines_of("CRITICAL").len(), 1, "one line says why");
}

/// With these failpoints the first group must be refused and not stored, and the next one must be stored.
fn the_first_group_is_refused(failpoints: &str, reason: &str) {
    let Some(setup) = with(failpoints) else { return };
    let mut server = setup.start();
    let (mut client, _) = server.session(1);
    client.send_bets(0, &bets(1, 0..300));
    let said = client.expect_error();
    assert!(said.contains(reason), "{said}");
    // The next batch would leave a gap, and so would an END.
    client.send_bets(300, &bets(1, 300..310));
    assert!(client.expect_error().contains("the first bet would be number 300"));
    client.send_frame(kind::END, b"");
    assert!(client.expect_error().contains("the first bet would be number 300"));
    assert_eq!(server.bets_file(), b"", "nothing of it is stored");
    assert_eq!(server.log().lines_with("ERROR    action: storage_write | result: fail").len(), 1);
    client.store(0, &bets(1, 0..310));
    server.connect().classic(kind::BET, &Bet::made_up(2, 0).record(), kind::BET_ACK, b"OK");
    assert_eq!(server.bets_file(), rows(&[bets(1, 0..310), bets(2, 0..1)].concat()));
    assert_eq!(status(server.port())["bets"], 311);
    assert_eq!(status(server.port())["storage_restarts"], 0);
    client.end_agency();
    server.terminate();
    check_folder(&setup);
}

#[test]
fn a_failed_write_is_refused_and_rolled_back() {
    the_first_group_is_refused("disk_append=1*return", "I/O error");
    the_first_group_is_refused("disk_append=1*return(28)", "No space left");
}

#[test]
fn a_failed_sync_is_refused_and_rolled_back() {
    // The first sync is that of the recovery.
    the_first_group_is_refused("disk_sync=1*off->1*return", "I/O error");
}

#[test]
fn a_classic_batch_whose_write_fails_is_refused_and_rolled_back() {
    // The cut after a failed sync is synced too.
    let syncs = "disk_sync=1*off->1*return->1*off->1*return->1*off->1*return";
    for failpoints in ["disk_append=3*return(28)", syncs] {
        let Some(setup) = with(failpoints) else { return };
        let server = setup.start();
        let mixed = [bets(1, 0..200), bets(2, 0..200)].concat();
        for _ in 0..2 {
            let reason = server.connect().refused(kind::MULTIPLE_BETS, &records(&mixed));
            assert!(reason.starts_with("could not be stored: "), "{reason}");
            assert_eq!(server.bets_file(), b"");
        }
        server.connect().refused(kind::BET, &mixed[0].record());
        server.connect().classic(kind::MULTIPLE_BETS, &records(&mixed), kind::BET_ACK, b"OK");
        assert_eq!(server.bets_file(), rows(&mixed));
    }
}

#[test]
fn if_the_rollback_fails_too_nobody_gets_a_reply_and_the_server_ends() {
    for failpoints in
        ["disk_sync=2*off->1*return;disk_cut=1*return", "disk_append=1*off->1*return;disk_cut=1*return"]
    {
        let Some(setup) = with(failpoints) else { return };
        let mut server = setup.start();
        let (mut client, _) = server.session(1);
        client.store(0, &bets(1, 0..3));
        client.send_bets(3, &bets(1, 3..400));
        client.expect_closed();
        gave_up(&mut server);
        // The next server finds out whether the batch is stored. No bet is stored twice.
        let again = setup.clone().without("FAILPOINTS").start();
        let (mut client, opened) = again.session(1);
        assert!([3, 400].contains(&opened.stored), "{}", opened.stored);
        client.store(3, &bets(1, 3..410));
        assert_eq!(again.bets_file(), rows(&bets(1, 0..410)));
    }
}

#[test]
fn an_end_that_cannot_be_written_is_refused_and_can_be_sent_again() {
    for failpoints in ["disk_write_state=3*off->2*return(28)", "disk_rename_state=3*off->2*return"] {
        let Some(setup) = with(failpoints) else { return };
        let setup = setup.with("CLIENTS_AMOUNT", 4);
        let mut server = setup.start();
        for agency in [3, 4] {
            server.session(agency).0.end_agency();
        }
        let before = setup.state();
        let (mut client, _) = server.session(1);
        client.store(0, &[winner(1, "11")]);
        client.send_frame(kind::END, b"");
        assert!(!client.expect_error().is_empty());
        // A classic END has no reply.
        server.connect().classic_end(2);
        assert_eq!(setup.state(), before);
        assert_eq!(status(server.port())["ended"], 2);
        assert_eq!(server.log().lines_with("ERROR    action: state_write | result: fail").len(), 2);
        // Neither agency has ended.
        client.store(1, &[winner(1, "12")]);
        server.connect().classic(kind::BET, &winner(2, "21").record(), kind::BET_ACK, b"OK");
        client.end_agency();
        server.connect().classic(kind::RESULT_REQUEST, &[1], kind::IN_PROGRESS, b"");
        server.connect().classic_end(2);
        server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"11\x1e12");
        server.connect().classic(kind::RESULT_REQUEST, &[2], kind::RESULT, b"21");
        server.terminate();
        check_folder(&setup);
    }
}

#[test]
fn without_its_state_file_no_draw_is_made() {
    let Some(setup) = with("disk_rename_state=2*off->1*return") else { return };
    let server = setup.start();
    let (mut awaiting, _) = server.session(1);
    awaiting.store(0, &[winner(1, "11")]);
    awaiting.end_agency();
    awaiting.send_frame(kind::AWAIT_RESULT, b"");
    let (mut last, _) = server.session(2);
    last.send_frame(kind::END, b"");
    last.expect_error();
    awaiting.expect_silence();
    assert_eq!(server.log().draws(), 0);
    last.end_agency();
    awaiting.expect(kind::RESULT, b"11");
    assert_eq!(server.log().draws(), 1);
}

#[test]
fn a_failed_sync_of_the_folder_is_tried_again() {
    // The first sync is that of the recovery.
    let Some(setup) = with("disk_sync_folder=1*off->1*return") else { return };
    let server = setup.start();
    server.session(1).0.end_agency();
    assert_eq!(server.session(1).1.state, 1);
}

#[test]
fn a_folder_that_cannot_be_synced_ends_the_server_and_the_end_gets_no_reply() {
    let Some(setup) = with("disk_sync_folder=1*off->2*return") else { return };
    let mut server = setup.start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    client.send_frame(kind::END, b"");
    client.expect_closed();
    gave_up(&mut server);
    let again = setup.clone().without("FAILPOINTS").start();
    let (mut client, opened) = again.session(1);
    assert_eq!(opened.stored, 3);
    assert!(opened.state <= 1);
    client.end_agency();
}

#[test]
fn a_recovery_that_fails_ends_the_server_and_leaves_the_file() {
    let torn = [rows(&bets(1, 0..3)), b"1,Ana,Pe".to_vec()].concat();
    for failpoints in ["disk_cut=1*return", "disk_sync=1*return", "disk_sync_folder=1*return"] {
        let Some(setup) = with(failpoints) else { return };
        let setup = setup.write("bets.csv", &torn);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1));
        assert!(ended.failure().contains("Input/output error"));
        assert!(setup.bets_file().starts_with(&rows(&bets(1, 0..3))));
        let again = setup.clone().without("FAILPOINTS").start();
        assert_eq!(again.bets_file(), rows(&bets(1, 0..3)));
    }
}

/// These are the folder with the new bets file, the new state file, and the folder with that one.
#[test]
fn a_server_that_cannot_sync_what_its_first_start_creates_ends() {
    for number in 1..=3 {
        let Some(setup) = Setup::new().with_fault(&format!("fsync:error=EIO:when={number}")) else { return };
        let ended = setup.run();
        assert_eq!(ended.code, Some(1));
        assert!(ended.failure().contains("Input/output error"));
    }
}

#[test]
fn a_storage_service_that_dies_at_each_start_ends_the_server() {
    let Some(setup) = with("bets_synced=1*return") else { return };
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    ended.log.assert_well_formed();
    assert_eq!(ended.log.lines_with("ERROR    action: storage | result: fail").len(), 6);
    assert_eq!(ended.log.lines_of("CRITICAL").len(), 1, "one line says why");
}

#[test]
fn a_disk_that_fails_now_and_then_under_load_loses_and_doubles_no_bet() {
    let Some(setup) = with(
        "disk_append=9*off->2*return(28)->20*off->1*return;disk_sync=15*off->1*return->9*off->1*return->1*off->1*return;\
        disk_write_state=1*off->1*return(28);disk_rename_state=2*off->1*return",
    ) else {
        return;
    };
    let setup = setup.with("CLIENTS_AMOUNT", AGENCIES).with("LOGGING_LEVEL", "INFO");
    let server = setup.with("SERVER_PORT", free_port()).start();
    let setup = server.setup();
    let load = Load::new(server.port(), 7, true);
    load.run(|| ());
    check_all(server, &load, Unanswered::Whole);
    let failed = |what: &str| logs(&setup).iter().map(|log| log.lines_with(what).len()).sum::<usize>();
    assert!(failed("action: storage_write | result: fail") >= 3);
    assert_eq!(failed("action: state_write | result: fail"), 2);
    assert_eq!(failed("action: storage | result: fail"), 0);
}

#[test]
fn links_and_files_at_the_path_of_the_next_state_file_are_neither_followed_nor_changed() {
    let plants: [(&str, &[&str]); 4] = [
        ("a symlink", &["ln", "-s"]),
        ("a hard link", &["ln"]),
        ("a file", &["cp"]),
        ("a symlink to nothing", &["sh", "-c", "ln -s nowhere \"$1\"", "sh"]),
    ];
    for (what, plant) in plants {
        let server = Setup::of(2).write("victim", "not to be touched").start();
        let [victim, next] = ["victim", "bets.csv.state.next"].map(|name| server.setup().path(name));
        let mut command = Command::new(plant[0]);
        command.args(&plant[1..]);
        if plant[0] != "sh" {
            command.arg(&victim);
        }
        assert!(output(command.arg(&next)).status.success());
        server.connect().classic_end(1);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "not to be touched", "{what}");
        assert!(!server.setup().path("nowhere").exists(), "{what}");
        assert!(!next.is_symlink() && !next.exists(), "{what}");
        let state = server.setup().path("bets.csv.state");
        assert!(fs::symlink_metadata(state).unwrap().is_file(), "{what}");
        assert_eq!(server.setup().ended(), [1]);
    }
}

#[test]
fn at_the_path_of_the_next_state_file_a_pipe_does_not_block_storage_and_a_folder_is_a_refusal() {
    let server = Setup::of(3).start();
    let next = server.setup().path("bets.csv.state.next");
    nix::unistd::mkfifo(&next, nix::sys::stat::Mode::S_IRWXU).unwrap();
    server.connect().classic_end(1);
    fs::create_dir(&next).unwrap();
    let (mut client, _) = server.session(2);
    client.send_frame(kind::END, b"");
    assert!(client.expect_error().contains("Is a directory"));
    fs::remove_dir(&next).unwrap();
    client.end_agency();
    assert_eq!(server.setup().ended(), [1, 2]);
}

#[test]
fn a_write_that_a_limit_on_the_file_size_cuts_short_is_refused_and_rolled_back() {
    // 128 blocks of 512 bytes.
    let server =
        Setup::of(2).with_limit("f", 128).with("MAX_PAYLOAD", 1 << 20).with("LOGGING_LEVEL", "INFO").start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..300));
    client.send_bets(300, &bets(1, 300..2000));
    let reason = client.expect_error();
    assert!(reason.starts_with("could not be stored: ") && reason.contains("File too large"), "{reason}");
    assert_eq!(server.bets_file(), rows(&bets(1, 0..300)));
    client.store(300, &bets(1, 300..310));
    assert_eq!(server.bets_file(), rows(&bets(1, 0..310)));
    assert_eq!(status(server.port())["storage_restarts"], 0);
}

#[test]
fn batches_that_do_not_fit_do_not_make_the_disk_refuse_batches_that_fit() {
    // 1,760 blocks of 512 bytes: 900 kB.
    let server =
        Setup::of(5).with_limit("f", 1760).with("MAX_PAYLOAD", 1 << 20).with("LOGGING_LEVEL", "ERROR");
    let server = server.start_quietly();
    let hostile = |agency| {
        let mut client = server.session(agency).0;
        let batch = bets(agency, 0..17_500);
        assert!(rows(&batch).len() > 1760 * 512);
        let frame = bets_frame(0, &batch);
        move || {
            for _ in 0..4 {
                client.send(&frame);
                assert!(client.expect_error().contains("File too large"));
            }
        }
    };
    let hostile = [1, 2, 3].map(hostile);
    let done = AtomicBool::new(false);
    let honest = |agency| {
        let mut client = server.session(agency).0;
        let done = &done;
        move || {
            let until_done = (0..).take_while(|_| !done.load(Ordering::Relaxed));
            until_done.inspect(|&at| client.store(at.into(), &bets(agency, at..at + 1))).count()
        }
    };
    let honest = [4, 5].map(honest);
    let stored = thread::scope(|scope| {
        let honest = honest.map(|honest| scope.spawn(honest));
        let hostile = hostile.map(|hostile| scope.spawn(hostile)).map(thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        assert!(hostile.iter().all(Result::is_ok));
        honest.map(|honest| honest.join().expect("every batch that fits is stored"))
    });
    let file = parse_rows(&server.bets_file());
    for (agency, stored) in [4, 5].into_iter().zip(stored) {
        assert_eq!(of_agency(&file, agency), bets(agency, 0..stored.try_into().unwrap()));
    }
    assert_eq!(file.len(), stored.into_iter().sum::<usize>());
}

/// Fills the disk.
fn fill(path: &Path) {
    let mut ballast = fs::File::create(path).unwrap();
    while ballast.write_all(&[0; 512]).is_ok() {}
}

#[test]
fn a_full_disk_is_a_refusal_until_there_is_room_again() {
    let setup = Setup::of(2).with("STORAGE_FILEPATH", "disk/bets.csv").with("MAX_PAYLOAD", 1 << 20);
    let (disk, ballast) = (setup.path("disk"), setup.path("disk/ballast"));
    fs::create_dir(&disk).unwrap();
    let Some(_mount) = Mount::new("tmpfs", "size=256k", &disk) else {
        eprintln!("skipped: only root can mount a small disk");
        return;
    };
    let file = || fs::read(disk.join("bets.csv")).unwrap();
    let server = setup.start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..30));
    // This does not fit.
    client.send(&[bets_frame(30, &bets(1, 30..9000)), bets_frame(9000, &bets(1, 9000..9001))].concat());
    assert!(client.expect_error().contains("No space left"));
    client.expect_error();
    server.connect().refused(kind::MULTIPLE_BETS, &records(&bets(2, 0..9000)));
    assert_eq!(file(), rows(&bets(1, 0..30)), "it is cut back");
    // A batch that fits is stored.
    client.store(30, &bets(1, 30..40));
    fill(&ballast);
    client.send_bets(40, &bets(1, 40..300));
    assert!(client.expect_error().contains("No space left"));
    let (mut other, _) = server.session(2);
    other.send_frame(kind::END, b"");
    assert!(other.expect_error().contains("No space left"));
    assert_eq!(file(), rows(&bets(1, 0..40)));
    fs::remove_file(&ballast).unwrap();
    client.store(40, &bets(1, 40..300));
    server.connect().classic(kind::MULTIPLE_BETS, &records(&bets(2, 0..9)), kind::BET_ACK, b"OK");
    client.end_agency();
    server.connect().classic_end(2);
    server.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"");
    let stored = parse_rows(&file());
    assert_eq!((of_agency(&stored, 1), of_agency(&stored, 2)), (bets(1, 0..300), bets(2, 0..9)));
    assert_eq!(status(server.port())["storage_restarts"], 0);
    drop(server);
}
