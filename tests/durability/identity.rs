//! The bets file stays the one that storage opened, as storage left it: anything else is noticed before a bet is acknowledged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use common::processes::{AS_PROCESS_1, has_open, send};
use common::{RunningServer, Setup, bets, kind, loteria, output, rows, server_of, until, winner};
use nix::sys::signal::Signal;

/// Changes the file at a path.
type Change = fn(&Path);

/// The ways in which another program changes the file, and what the log says about each.
const CHANGES: [(&str, Change, &str); 6] = [
    ("moved", |path| rename(path, &path.with_extension("moved")), "moved, removed or replaced"),
    ("removed", |path| fs::remove_file(path).unwrap(), "moved, removed or replaced"),
    ("replaced by a copy", replace, "moved, removed or replaced"),
    ("emptied", |path| fs::write(path, "").unwrap(), "it has 0 bytes instead of"),
    ("cut", |path| cut(path, 10), "it has 10 bytes instead of"),
    ("written to", append, "so another program has cut it or written to it"),
];

#[expect(clippy::disallowed_methods, reason = "nothing has to outlast a loss of power here")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

fn replace(path: &Path) {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    rename(&copy, path);
}

fn cut(path: &Path, length: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn append(path: &Path) {
    let file = [fs::read(path).unwrap(), rows(&[winner(2, "1")])].concat();
    fs::write(path, file).unwrap();
}

/// The server must have ended with this reason in the one line that says why.
#[track_caller]
fn gave_up(server: &mut RunningServer, reason: &str) {
    assert_eq!(server.wait().code(), Some(1));
    let log = server.log();
    let lines = log.lines_of("CRITICAL");
    assert_eq!(lines.len(), 1, "one line says why");
    assert!(lines[0].contains(reason), "{}", lines[0]);
}

#[test]
fn a_bets_file_that_is_changed_under_a_running_server_is_noticed_before_anything_is_acknowledged() {
    for (what, change, reason) in CHANGES {
        for ask in ["new bets", "stored bets", "END"] {
            let mut server = server_of(2);
            let (mut client, _) = server.session(1);
            client.store(0, &bets(1, 0..3));
            let (path, state) = (server.setup().bets_path(), server.setup().state());
            let before = server.bets_file();
            change(&path);
            let after = fs::read(&path).ok();
            match ask {
                "new bets" => client.send_bets(3, &bets(1, 3..5)),
                "stored bets" => client.send_bets(0, &bets(1, 0..3)),
                _ => client.send_frame(kind::END, b""),
            }
            let said = client.expect_error();
            assert!(said.starts_with("could not be stored: another program has"), "{what}, {ask}: {said}");
            gave_up(&mut server, reason);
            assert_eq!(fs::read(&path).ok(), after, "{what}, {ask}: it is left as it was found");
            assert_eq!(server.setup().state(), state, "{what}, {ask}");
            // The file is put back: nothing of it is lost.
            let server = server.setup().write("bets.csv", before).start();
            assert_eq!(server.session(1).1.stored, 3, "{what}, {ask}");
        }
    }
}

#[test]
fn bets_that_were_written_to_a_file_that_was_moved_meanwhile_are_refused_and_cut_off() {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: only debug builds have failpoints");
        return;
    }
    let setup = Setup::of(2).with("FAILPOINTS", "bets_written=1*off->1*sleep(500)");
    let mut server = setup.start();
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    client.send_bets(3, &bets(1, 3..5));
    let (path, moved) = (setup.bets_path(), setup.path("moved.csv"));
    until("the bets are written", || server.bets_file() == rows(&bets(1, 0..5)));
    rename(&path, &moved);
    assert!(client.expect_error().starts_with("could not be stored: another program has"));
    gave_up(&mut server, "moved, removed or replaced");
    assert_eq!(fs::read(&moved).unwrap(), rows(&bets(1, 0..3)));
}

#[test]
fn a_second_server_at_the_path_of_files_that_were_moved_keeps_its_draw() {
    let mut first = server_of(1);
    let (mut client, _) = first.session(1);
    client.store(0, &bets(1, 0..3));
    let setup = first.setup();
    for name in ["bets.csv", "bets.csv.state"] {
        rename(&setup.path(name), &setup.path(&format!("moved-{name}")));
    }
    let second = setup.start();
    second.session(1).0.store(0, &[winner(1, "11")]);
    second.connect().classic_end(1);
    second.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"11");
    let state = setup.state();
    assert!(!state["draw"].is_null());
    client.send_frame(kind::END, b"");
    assert!(client.expect_error().starts_with("could not be stored"));
    gave_up(&mut first, "moved, removed or replaced");
    assert_eq!(setup.state(), state);
}

#[test]
fn a_storage_service_that_is_restarted_refuses_another_file() {
    for (what, change, _) in CHANGES.into_iter().take(3) {
        let mut server = server_of(2);
        server.session(1).0.store(0, &bets(1, 0..3));
        let storage = server.storage();
        let path = server.setup().bets_path();
        change(&path);
        let after = fs::read(&path).ok();
        send(storage, Signal::SIGKILL);
        gave_up(&mut server, "it was moved, removed or replaced while the server ran");
        assert_eq!(fs::read(&path).ok(), after, "{what}");
    }
}

#[test]
fn a_storage_service_that_is_restarted_does_not_forget_the_ends_of_a_state_file_that_was_removed() {
    let mut server = server_of(2);
    let (mut client, _) = server.session(1);
    client.store(0, &bets(1, 0..3));
    client.end_agency();
    let (storage, state) = (server.storage(), server.setup().path("bets.csv.state"));
    fs::remove_file(&state).unwrap();
    send(storage, Signal::SIGKILL);
    gave_up(&mut server, "its state file was removed while the server ran");
    assert!(!state.exists());
}

#[test]
fn bets_that_were_lost_without_their_state_file_are_missed_at_the_next_start() {
    let mut server = server_of(2);
    server.session(1).0.store(0, &bets(1, 0..3));
    server.terminate();
    fs::remove_file(server.setup().bets_path()).unwrap();
    let ended = server.setup().run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.failure().contains("it is not there, but its state file is"), "{}", ended.log.0);
}

#[test]
fn a_server_and_an_auditor_find_the_state_file_through_links() {
    let mut server = Setup::of(1).with("STORAGE_FILEPATH", "real/bets.csv");
    fs::create_dir(server.path("real")).unwrap();
    symlink("real/bets.csv", server.path("link")).unwrap();
    symlink("link", server.path("link-of-a-link")).unwrap();
    for name in ["link", "real/bets.csv", "link-of-a-link"] {
        server = server.with("STORAGE_FILEPATH", name);
        let mut running = server.start();
        if name == "link" {
            // It leads to no file yet.
            running.session(1).0.store(0, &[winner(1, "11")]);
            running.connect().classic_end(1);
        }
        running.connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"11");
        assert!(!running.connect().refused(kind::BET, &winner(1, "12").record()).is_empty(), "{name}");
        running.terminate();
        for command in ["check", "winners"] {
            let mut command = loteria(&[command, "--file", name]);
            let found = output(command.current_dir(server.path("")));
            let text = String::from_utf8(found.stdout).unwrap();
            assert!(found.status.success(), "{text}");
            assert!(text.contains("draw of 1 agency: winning number 7574"), "{name}: {text}");
        }
    }
    assert!(server.path("real/bets.csv.state").is_file());
    assert!(!server.path("link.state").exists() && !server.path("link-of-a-link.state").exists());
}

#[test]
fn a_bets_file_with_several_names_is_a_warning() {
    let setup = Setup::of(2).write("bets.csv", rows(&bets(1, 0..3)));
    fs::hard_link(setup.bets_path(), setup.path("other.csv")).unwrap();
    let server = setup.start();
    let log = server.log();
    assert_eq!(log.lines_with("WARNING  action: hard_links | result: success").len(), 1);
    assert_eq!(log.value("hard_links", "links").as_deref(), Some("2"));
    server.session(1).0.store(3, &bets(1, 3..4));
}

#[test]
fn a_reader_that_holds_a_lock_is_named_and_a_restarted_storage_waits_for_it() {
    let setup = Setup::of(2).write("bets.csv", rows(&bets(1, 0..3)));
    let lock = setup.lock_bets_for_reading();
    let ended = setup.run();
    assert_eq!(ended.code, Some(1));
    let text = format!("process {} reads it and holds a lock", std::process::id());
    assert!(ended.failure().contains(&text), "{}", ended.log.0);
    drop(lock);

    let mut server = setup.start();
    let storage = server.storage();
    // The reader comes between two storage processes.
    server.signal(Signal::SIGSTOP);
    send(storage, Signal::SIGKILL);
    until("storage has ended", || !has_open(storage, &setup.bets_path()));
    let reader = setup.lock_bets_for_reading();
    server.signal(Signal::SIGCONT);
    let waits = "WARNING  action: lock | result: in_progress";
    until("storage waits for the reader", || server.log().lines_with(waits).len() == 1);
    assert!(server.log().lines_with(waits)[0].contains(&text));
    // Longer than a first start would wait.
    sleep(Duration::from_millis(2500));
    assert_eq!(server.log().lines_with(waits).len(), 1, "one warning is enough");
    drop(reader);
    assert_eq!(server.session(1).1.stored, 3);
    server.terminate();
}

#[test]
fn a_holder_of_the_lock_that_cannot_be_seen_is_described() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root can make a PID namespace");
    }
    let server = server_of(2);
    let ended = server.setup().started_by(&AS_PROCESS_1).run();
    assert_eq!(ended.code, Some(1));
    let said =
        "error: in use by a process of another container, or of the host, a server's storage service; stop";
    assert!(ended.failure().contains(said), "{}", ended.log.0);
}
