//! The agency, `bet` and `status` over TLS, against servers that are not what they should be.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::thread::Builder;

use common::agencies::Agency;
use common::tls::{agency_folder, make_certificates, move_file, tls_setup};
use common::{RunningServer, Setup, frame, kind, loteria, output, text, until};
use nix::sys::signal::Signal;

/// An agency 1 with ten bets, and the certificate of this folder.
fn agency(setup: &Setup, address: &str, folder: &Path) -> Agency {
    let rows = "Ana,Pérez,30904465,1990-01-01,7574\n".repeat(10);
    fs::write(setup.path("agency-1.csv"), rows).unwrap();
    Agency::start(&setup.path(""), 1, address, &[("CLI_TLS_DIR", folder.to_str().unwrap())])
}

fn address(server: &RunningServer) -> String {
    format!("localhost:{}", server.port())
}

#[test]
fn a_refused_certificate_ends_the_agency_with_the_reason() {
    let setup = tls_setup(1);
    let other = tls_setup(1);
    let server = setup.start();
    // The server of this authority, but the certificate of another one.
    for name in ["tls.crt", "tls.key"] {
        fs::copy(agency_folder(&other, 1).join(name), agency_folder(&setup, 1).join(name)).unwrap();
    }
    let mut agency = agency(&setup, &address(&server), &agency_folder(&setup, 1));
    let last = agency.fail();
    assert!(
        last.contains("this certificate is not signed by an authority that the server accepts"),
        "{last}"
    );
}

#[test]
fn an_agency_trusts_no_server_of_another_authority_or_name() {
    let setup = tls_setup(1);
    let other = tls_setup(1);
    let server = setup.clone().with("SERVER_IP", "0.0.0.0").start();
    let last = agency(&other, &address(&server), &agency_folder(&other, 1)).fail();
    assert!(
        last.contains("the server's certificate is not accepted: it is not signed by an authority of ca.crt"),
        "{last}"
    );
    let last = agency(&setup, &format!("127.0.0.2:{}", server.port()), &agency_folder(&setup, 1)).fail();
    assert!(last.contains("not valid for name"), "{last}");
    let last = agency(&setup, &address(&server), &setup.path("nowhere")).fail();
    assert!(last.contains("nowhere/ca.crt: No such file or directory"), "{last}");
}

#[test]
fn a_server_without_tls_ends_the_agency_and_gets_nothing_in_plain_text() {
    let setup = Setup::of(1);
    make_certificates(&setup, 1, &[]);
    let server = setup.start();
    let last = agency(&setup, &address(&server), &agency_folder(&setup, 1)).fail();
    assert!(
        last.contains("the server does not speak TLS: it answered in plain text: unknown message type 0x16"),
        "{last}"
    );
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn a_busy_server_and_one_that_closes_are_tried_again() {
    let setup = tls_setup(1);
    let server = setup.start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut agency = agency(&setup, &format!("localhost:{port}"), &agency_folder(&setup, 1));
    let (mut busy, _) = listener.accept().unwrap();
    let mut hello = [0];
    busy.read_exact(&mut hello).unwrap();
    assert_eq!(hello, [0x16]);
    busy.write_all(&frame(kind::ERROR, b"busy: try again later")).unwrap();
    drop(busy);
    agency.await_log("the server says: busy: try again later", 1);
    let (mut closing, _) = listener.accept().unwrap();
    closing.read_exact(&mut hello).unwrap();
    drop(closing);
    // From now on it is a relay to the server.
    let upstream = server.port();
    let relay = move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                let copy = move || {
                    io::copy(&mut from, &mut to).ok();
                    to.shutdown(Shutdown::Write).ok();
                };
                Builder::new().spawn(copy).unwrap();
            }
        }
    };
    Builder::new().spawn(relay).unwrap();
    let log = agency.succeed();
    assert_eq!(log.lines_of("WARNING").len(), 2, "one for each reason: {}", log.0);
}

#[test]
fn an_agency_survives_a_dead_keeper() {
    let setup = tls_setup(1);
    let server = setup.start();
    let file = setup.path("certs/server/tls.crt");
    move_file(&file, &setup.path("away"));
    common::processes::send(server.keeper(), Signal::SIGKILL);
    server.wait_for_text("tls.crt: No such file");
    let mut agency = agency(&setup, &address(&server), &agency_folder(&setup, 1));
    agency.await_log("busy: the server can't check certificates", 1);
    move_file(&setup.path("away"), &file);
    server.signal(Signal::SIGHUP);
    agency.succeed();
}

#[test]
fn a_bet_and_a_status_go_over_tls() {
    let setup = tls_setup(2);
    let server = setup.start();
    let bet = |agency: &str, folder: &str| {
        let arguments = [
            "bet",
            "--agency",
            agency,
            "--first-name",
            "Ana",
            "--last-name",
            "P",
            "--document",
            "1",
            "--birthdate",
            "1990-01-01",
            "--number",
            "7",
            "--address",
            &address(&server),
            "--tls-dir",
            folder,
        ];
        output(loteria(&arguments).current_dir(setup.path("")))
    };
    assert_eq!(bet("2", "certs/agency-{id}").status.code(), Some(0));
    let refused = bet("1", "certs/agency-2");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("this connection belongs to agency 2, not 1"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(server.bets_file(), b"2,Ana,P,1,1990-01-01,7\r\n");
    let status = |folder: &str| {
        let arguments = ["status", "--address", &address(&server), "--tls-dir", folder];
        output(loteria(&arguments).current_dir(setup.path("")))
    };
    assert!(text(&status("certs/operator").stdout).contains("bets stored"));
    let failed = status("certs/server");
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stderr).contains("this certificate is not for TLS clients"),
        "{}",
        text(&failed.stderr)
    );
    until("no handler is left", || server.handlers().is_empty());
}
