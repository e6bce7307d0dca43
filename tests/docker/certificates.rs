//! A contest over TLS in containers.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;

use common::compose::{Contest, engine};
use common::{loteria, output, text};

use super::user;

const BETS: [u32; 3] = [300, 0, 200];
/// The server's user is neither the image's nor the owner of the certificates.
const ANOTHER_USER: &str = "services:\n  server:\n    user: \"10776\"\n";

#[test]
fn the_bets_file_over_tls_is_that_of_plain_tcp_byte_for_byte_and_certificates_are_renewed_meanwhile() {
    let Some(_turn) = engine() else { return };
    let plain = Contest::of_agencies("plain", &BETS).with_file("config.ini", "[DEFAULT]\n");
    start(&plain, "client1", 300);
    start(&plain, "client3", 500);
    plain.up();
    plain.wait_for_winners(1);

    let contest = Contest::of_agencies("tls", &BETS).with_file("config.ini", "[DEFAULT]\n");
    let contest = contest.with_file("docker-compose.override.yaml", ANOTHER_USER);
    let compose = ["compose", "--agencies", "3", "--data", "data", "--certs", "certs"];
    let contest = contest.with_file("docker-compose.yaml", &text(&output(&mut loteria(&compose)).stdout));
    certs(&contest, &["--days", "100"]);
    start(&contest, "client1", 300);
    let until = contest.log("server").value("tls", "certificate_until").unwrap();
    renew(&contest);
    let log = contest.log("server");
    let lines = log.lines_with("action: tls | result: success");
    assert!(lines[1].ends_with("revoked: 1") && !lines[1].contains(&until), "{}", log.0);
    start(&contest, "client3", 500);
    contest.up();
    contest.wait_for_winners(1);
    assert_eq!(contest.bets_file(), plain.bets_file());
    let log = contest.log("client1");
    assert_eq!(log.lines_with("action: open_session").len(), 1, "its session went on: {}", log.0);
}

/// Starts an agency and waits until that many bets are stored, so that the order of the rows is known.
fn start(contest: &Contest, client: &str, stored: u64) {
    contest.compose(&["up", "--detach", client]);
    contest.until("its bets are stored", || contest.stored() == Some(stored));
}

/// Makes certificates that belong to neither of the containers' users.
fn certs(contest: &Contest, arguments: &[&str]) {
    let folder = contest.path("");
    let owner = user(10_775);
    chown(&folder, Some(owner), None).unwrap();
    let mut certs = loteria(&["certs", "--agencies", "3"]);
    let made = output(certs.args(arguments).uid(owner).current_dir(folder));
    assert!(made.status.success(), "{made:?}");
}

/// Renews the server's certificate and replaces that of agency 3, while the first agency waits for the draw.
fn renew(contest: &Contest) {
    let folder = contest.path("certs/server");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::remove_file(folder.join(file)).unwrap();
    }
    certs(contest, &["--revoke", "3"]);
    contest.compose(&["kill", "-s", "HUP", "server"]);
    contest.until("the server has read its certificates", || {
        contest.log("server").lines_with("action: tls | ").len() == 2
    });
}
