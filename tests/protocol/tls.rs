//! TLS: who may act for whom, and how a client that may not is told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::client::{bets_frame, open_frame};
use common::tls::{
    agency_folder, alert, client_config, exchange, exchange_without_certificate, make_certificates, relay,
    tls_setup,
};
use common::{Client, RunningServer, Setup, bets, frame, kind, loteria, output, records, rows, text};
use rustls::AlertDescription;

const NO_CERTIFICATE: &str = "this server accepts agencies over TLS with a certificate only";

/// A client that has a folder of certificates; plain without one.
struct Peer<'a> {
    server: &'a RunningServer,
    port: u16,
}

impl<'a> Peer<'a> {
    fn agency(server: &'a RunningServer, agency: u32) -> Self {
        Self { server, port: relay(server.port(), &agency_folder(&server.setup(), agency)) }
    }

    fn operator(server: &'a RunningServer) -> Self {
        Self { server, port: relay(server.port(), &server.setup().path("certs/operator")) }
    }

    fn plain(server: &'a RunningServer) -> Self {
        Self { server, port: server.port() }
    }

    fn connect(&self) -> Client {
        Client::connect(self.port)
    }

    /// The reason for which it is refused all that concerns an agency.
    #[track_caller]
    fn is_refused(&self, agency: u8) -> String {
        let before = self.server.bets_file();
        let own = records(&bets(agency.into(), 0..3));
        let record = bets(agency.into(), 0..1)[0].record();
        let reason = self.connect().refused(kind::BET, &record);
        for (kind, payload) in [(kind::MULTIPLE_BETS, &own[..]), (kind::RESULT_REQUEST, &[agency])] {
            assert_eq!(self.connect().refused(kind, payload), reason);
        }
        let mut client = self.connect();
        client.send(&open_frame(1, agency.into()));
        assert_eq!(client.expect_error(), reason);
        client.expect_eof();
        // A classic END has no reply.
        let mut client = self.connect();
        client.send_frame(kind::END, &[agency]);
        client.expect_eof();
        assert!(self.server.bets_file() == before);
        reason
    }
}

#[test]
fn an_agency_with_a_certificate_does_everything_in_sessions_and_classic_messages() {
    let server = tls_setup(2).start();
    let [one, two] = [1, 2].map(|agency| Peer::agency(&server, agency));
    let mut session = one.connect();
    assert_eq!(session.open_session(1).stored, 0);
    session.store(0, &bets(1, 0..1000));
    session.end_agency();
    two.connect().classic(kind::BET, &bets(2, 0..1)[0].record(), kind::BET_ACK, b"OK");
    two.connect().classic(kind::MULTIPLE_BETS, &records(&bets(2, 1..3)), kind::BET_ACK, b"OK");
    for _ in 0..2 {
        two.connect().classic(kind::RESULT_REQUEST, &[2], kind::IN_PROGRESS, b"");
    }
    session.send_frame(kind::AWAIT_RESULT, b"");
    let mut client = two.connect();
    client.send_frame(kind::END, &[2]);
    client.expect_eof();
    let (got, winners) = session.read_frame();
    assert_eq!(got, kind::RESULT);
    session.half_close();
    session.expect_eof();
    let mut again = one.connect();
    again.open_session(1);
    again.send_frame(kind::RESULT_REQUEST, b"");
    again.expect(kind::RESULT, &winners);
    assert!(server.bets_file() == [rows(&bets(1, 0..1000)), rows(&bets(2, 0..3))].concat());
    let log = server.log();
    assert_eq!(
        log.lines_with("action: authenticate | result: success | ip: 127.0.0.1 | agency_id: 1 | serial: ")
            .len(),
        2
    );
    // The second poll is routine.
    assert_eq!(log.lines_with("DEBUG    action: authenticate | ").len(), 1, "{}", log.0);
}

#[test]
fn an_agency_acts_for_no_other() {
    let server = tls_setup(3).start();
    let two = Peer::agency(&server, 2);
    let mixed = records(&[bets(2, 0..2), bets(3, 0..1), bets(2, 2..3)].concat());
    let reason = two.connect().refused(kind::MULTIPLE_BETS, &mixed);
    assert_eq!(reason, "this connection belongs to agency 2, not 3");
    assert_eq!(two.is_refused(3), reason);
    // In its own session too.
    let mut session = two.connect();
    session.open_session(2);
    session.send_bets(0, &bets(3, 0..1));
    session.expect_error();
    session.send_frame(kind::END, &[3]);
    session.expect_error();
    assert_eq!(server.bets_file(), b"");
    let status = common::status(server.port());
    assert_eq!(status["ended"], 0);
    let refusals = status["refusals"].as_array().unwrap();
    let counted = refusals.iter().find(|refusal| refusal["reason"] == "not_proven").unwrap();
    assert_eq!(counted["count"], 6);
}

#[test]
fn the_operator_and_this_machine_have_the_status_and_nothing_else() {
    let server = tls_setup(2).start();
    let operator = Peer::operator(&server);
    assert_eq!(
        operator.is_refused(1),
        "this connection belongs to the operator, who may ask for the status only"
    );
    assert_eq!(Peer::plain(&server).is_refused(1), NO_CERTIFICATE);
    for peer in [operator, Peer::plain(&server), Peer::agency(&server, 1)] {
        let mut client = peer.connect();
        client.send_frame(kind::STATUS_REQUEST, b"");
        assert_eq!(client.read_frame().0, kind::STATUS);
        client.expect_eof();
    }
    server.wait_for_text(
        "action: authenticate | result: success | ip: 127.0.0.1 | agency_id: operator | serial: ",
    );
}

#[test]
fn nobody_can_force_the_draw_without_the_certificates_of_all_agencies() {
    let setup = tls_setup(2);
    let server = setup.start();
    let strangers = [Peer::plain(&server), Peer::operator(&server), Peer::agency(&server, 1)];
    for (peer, agencies) in strangers.iter().zip([&[1, 2][..], &[1, 2], &[2]]) {
        for agency in agencies {
            let mut client = peer.connect();
            client.send_frame(kind::END, &[*agency]);
            client.expect_eof();
            let mut session = peer.connect();
            session.send(&[open_frame(1, (*agency).into()), frame(kind::END, b"")].concat());
            session.expect_error();
        }
    }
    let end = frame(kind::END, &[2]);
    exchange_without_certificate(server.port(), &agency_folder(&setup, 1), &end).unwrap_err();
    assert_eq!(common::status(server.port())["ended"], 0);
    Peer::agency(&server, 1).connect().classic(kind::RESULT_REQUEST, &[1], kind::IN_PROGRESS, b"");
}

/// A stranger's address is not that of the server's own loopback: here another one of its machine.
#[test]
fn a_stranger_does_not_get_the_status() {
    let script = "ip link set lo up && ip address add 10.9.9.9/32 dev lo && exec \"$@\"";
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can make a network of its own");
        return;
    }
    let setup = tls_setup(1).with("SERVER_IP", "0.0.0.0");
    let server = setup.clone().started_by(&["unshare", "--net", "sh", "-c", script, "sh"]).start();
    let pid = server.pid().to_string();
    let status = |host: &str, more: &[&str]| {
        let mut command = std::process::Command::new("nsenter");
        command.args(["--net", "--target", &pid, &*common::program::PROGRAM, "status"]);
        let address = format!("{host}:{}", server.port());
        output(command.args(["--address", &address]).args(more).current_dir(setup.path("")))
    };
    assert!(status("127.0.0.1", &[]).status.success());
    let refused = status("10.9.9.9", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains(NO_CERTIFICATE), "{}", text(&refused.stderr));
}

#[test]
fn listed_agencies_may_come_without_a_certificate_and_no_others() {
    let server = tls_setup(4).with("PLAIN_AGENCIES", "2,4-9").start();
    let plain = Peer::plain(&server);
    let mut session = plain.connect();
    session.open_session(2);
    session.store(0, &bets(2, 0..5));
    plain.connect().classic(kind::BET, &bets(4, 0..1)[0].record(), kind::BET_ACK, b"OK");
    assert_eq!(plain.is_refused(3), NO_CERTIFICATE);
    let mixed = records(&[bets(2, 5..6), bets(3, 0..1)].concat());
    assert_eq!(plain.connect().refused(kind::MULTIPLE_BETS, &mixed), NO_CERTIFICATE);
    // With a certificate, the list means nothing.
    assert_eq!(Peer::agency(&server, 1).is_refused(2), "this connection belongs to agency 1, not 2");
    let line = server.log();
    let line = line.lines_with("action: tls |")[0].to_owned();
    assert!(line.contains("WARNING  action: tls"), "{line}");
    assert!(line.contains("the agencies 2,4-9 may come without a certificate (PLAIN_AGENCIES)"), "{line}");
}

#[test]
fn openssl_is_a_client_like_any_other() {
    let setup = tls_setup(1);
    let server = setup.start();
    let script = format!(
        "printf '\\016\\0\\0\\0\\0' | openssl s_client -quiet -connect {} -servername localhost -verify_return_error \
         -CAfile ca.crt -cert tls.crt -key tls.key -tls1_3",
        server.address()
    );
    let mut command = std::process::Command::new("sh");
    let answer = output(command.args(["-c", &script]).current_dir(agency_folder(&setup, 1)));
    let json = answer.stdout.get(5..).unwrap_or_default();
    assert_eq!(answer.stdout.first(), Some(&kind::STATUS), "{}", text(&answer.stderr));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(json).unwrap()["agencies"], 1);
    // Older versions of TLS are refused.
    let script = script.replace("-tls1_3", "-tls1_2");
    let refused =
        output(std::process::Command::new("sh").args(["-c", &script]).current_dir(agency_folder(&setup, 1)));
    assert_eq!(refused.stdout, b"");
    assert!(text(&refused.stderr).contains("alert"), "{}", text(&refused.stderr));
}

/// The server's certificate, and more behind it than a handshake can carry.
fn too_long(setup: &Setup) -> Vec<u8> {
    let read = |name: &str| fs::read(setup.path("certs").join(name)).unwrap();
    [read("server/tls.crt"), read("ca.crt").repeat(200)].concat()
}

#[test]
fn a_server_that_cannot_use_its_certificates_does_not_start_and_says_why() {
    let certificates = tls_setup(1);
    let long = too_long(&certificates);
    let cases: [(&str, &[u8], &str); 7] = [
        ("tls.crt", b"", "it has no certificate in PEM"),
        ("tls.crt", &long, "it has too many certificates"),
        ("tls.key", b"nonsense", "it has no private key in PEM"),
        ("ca.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ca.crt"),
        ("ca.crl", b"no list", "it has no revocation list in PEM"),
        (
            "tls.key",
            &fs::read(agency_folder(&certificates, 1).join("tls.key")).unwrap(),
            "it is not the key of",
        ),
        ("tls.crt", b"missing", "TLS_DIR must be a folder with tls.crt, tls.key and ca.crt"),
    ];
    for (name, content, reason) in cases {
        let setup = tls_setup(1);
        let path = setup.path("certs/server").join(name);
        if content == b"missing" {
            fs::remove_file(&path).unwrap();
        } else {
            fs::write(&path, content).unwrap();
        }
        let ended = setup.run();
        assert_eq!(ended.code, Some(2));
        let failure = ended.failure();
        assert!(failure.contains("CRITICAL action: tls | result: fail | error: "), "{failure}");
        assert!(failure.contains(reason) && failure.contains(name), "{failure}");
        let checked = check(&setup);
        assert_eq!(checked.status.code(), Some(2));
        let failure = text(&checked.stderr);
        assert!(failure.contains(reason) && failure.contains(name), "{failure}");
    }
}

/// Runs `loteria server --check` with the certificates of the setup.
fn check(setup: &Setup) -> std::process::Output {
    let mut command = loteria(&["server", "--check"]);
    output(command.env("TLS_DIR", "certs/server").current_dir(setup.path("")))
}

#[test]
fn what_needs_attention_is_warned_of_at_the_start_and_by_a_check() {
    // `openssl ca` wants an index of what was issued.
    let expired_list = "touch index
        printf '[ca]\ndefault_ca = own\n[own]\ndatabase = index\ndefault_md = sha256\ncrl_extensions = more\n\
        [more]\nauthorityKeyIdentifier = keyid\n' > config
        openssl ca -config config -gencrl -cert ca.crt -keyfile ca.key -out server/ca.crl \
        -crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z";
    let expired_certificate = "openssl req -new -key server/tls.key -subj /CN=server -out server.csr
        printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth' > extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -days -1 -out server/tls.crt -extfile extensions";
    let nameless = "openssl req -new -x509 -key server/tls.key -subj /CN=server -out server/tls.crt -days 99";
    for (days, script, reason) in [
        ("825", "true", None),
        ("20", "true", Some("the server's certificate ends in ")),
        ("825", expired_certificate, Some("the server's certificate has expired: clients refuse it")),
        (
            "825",
            "cp agency-1/tls.* server",
            Some(
                "tls.crt of TLS_DIR: it is not for TLS servers (extendedKeyUsage), as that of an agency is not: ",
            ),
        ),
        ("825", nameless, Some("tls.crt of TLS_DIR: it names no host (subjectAltName): clients refuse it; ")),
        ("825", expired_list, Some("a revocation list has expired: it still counts")),
    ] {
        let setup = Setup::of(1);
        make_certificates(&setup, 1, &["--days", days]);
        let mut shell = std::process::Command::new("sh");
        let made = output(shell.args(["-ec", script]).current_dir(setup.path("certs")));
        assert!(made.status.success(), "{}", text(&made.stderr));
        let checked = check(&setup);
        assert_eq!(checked.status.code(), Some(0));
        let printed = text(&checked.stdout);
        assert_eq!(printed.matches("\nwarning: ").count(), reason.iter().count(), "{printed}");
        let server = setup.clone().with("TLS_DIR", "certs/server").start();
        let log = server.log();
        let line = log.lines_with("action: tls | result: success | certificate_until: ")[0];
        assert_eq!(line.contains("WARNING"), reason.is_some(), "{line}");
        if let Some(reason) = reason {
            assert!(line.contains(&format!(" | reason: {reason}")), "{line}");
            assert!(printed.contains(&format!("\nwarning: {reason}")), "{printed}");
        }
        if script == expired_list {
            // It locks nobody out.
            let status =
                exchange(server.port(), &agency_folder(&setup, 1), &frame(kind::STATUS_REQUEST, b""));
            assert_eq!(status.unwrap().first(), Some(&kind::STATUS));
        }
    }
}

#[test]
fn a_list_of_plain_agencies_without_certificates_is_refused() {
    let ended = Setup::of(2).with("PLAIN_AGENCIES", 2).run();
    assert_eq!(ended.code, Some(2));
    let failure = ended.failure();
    assert!(failure.contains("without TLS_DIR all agencies may come without a certificate"), "{failure}");
}

#[test]
fn an_answer_comes_before_the_client_has_sent_everything_and_a_broken_handshake_ends_the_handler() {
    let server = tls_setup(1).start();
    // Bytes that only begin like TLS.
    let mut client = server.connect();
    client.send(b"\x16\x03\x01\x00\x05hello");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut rest).unwrap();
    assert_eq!(rest.first(), Some(&0x15), "an alert");
    // A handshake that is broken off.
    let mut client = server.connect();
    client.send(b"\x16\x03\x01\x02\x00\x01");
    client.stream.shutdown(Shutdown::Both).unwrap();
    common::until("no handler is left", || server.handlers().is_empty());
    Peer::agency(&server, 1).connect().classic(kind::RESULT_REQUEST, &[1], kind::IN_PROGRESS, b"");
}

#[test]
fn a_contest_over_tls_stores_the_same_bytes() {
    let setup = tls_setup(2);
    let sample =
        output(loteria(&["sample", "--agencies", "2", "--bets", "3000,2000"]).current_dir(setup.path("")));
    assert!(sample.status.success());
    let server = setup.start();
    let folder = setup.path("certs/agency-{id}").display().to_string();
    let address = format!("localhost:{}", server.port());
    let mut agencies: Vec<_> = [(1, "session"), (2, "classic")]
        .into_iter()
        .map(|(number, protocol)| {
            let variables =
                [("CLI_TLS_DIR", folder.as_str()), ("CLI_PROTOCOL", protocol), ("CLI_LOOP_PERIOD", "50ms")];
            common::agencies::Agency::start(&setup.path(""), number, &address, &variables)
        })
        .collect();
    for agency in &mut agencies {
        agency.succeed();
    }
    for number in [1, 2] {
        let own = common::agencies::bets_of(&setup, number);
        let stored = text(&server.bets_file());
        let stored: String =
            stored.split_inclusive("\r\n").filter(|row| row.starts_with(&format!("{number},"))).collect();
        assert!(stored.as_bytes() == rows(&own));
    }
}

#[test]
fn a_reload_takes_new_files_and_keeps_the_old_ones_if_they_are_bad() {
    let setup = tls_setup(2);
    let server = setup.start();
    let (one, two) = (Peer::agency(&server, 1), Peer::agency(&server, 2));
    let mut session = one.connect();
    session.open_session(1);
    // The old certificate of agency 1, which is revoked now.
    let old = setup.path("old");
    fs::create_dir(&old).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        fs::copy(agency_folder(&setup, 1).join(name), old.join(name)).unwrap();
    }
    make_certificates(&setup, 2, &["--revoke", "1"]);
    let reload = || server.signal(nix::sys::signal::Signal::SIGHUP);
    reload();
    server.wait_for_text("INFO     action: tls | result: success | certificate_until: ");
    common::until("a list", || !server.log().lines_with(" | revoked: 1").is_empty());
    assert_eq!(alert(server.port(), &old), AlertDescription::CertificateRevoked);
    session.store(0, &bets(1, 0..10));
    two.connect().classic(kind::RESULT_REQUEST, &[2], kind::IN_PROGRESS, b"");
    Peer::agency(&server, 1).connect().classic(kind::RESULT_REQUEST, &[1], kind::IN_PROGRESS, b"");
    // Bad files.
    let bad: [(&str, &[u8]); 4] =
        [("tls.crt", &too_long(&setup)), ("tls.key", b""), ("ca.crt", b"nonsense"), ("ca.crl", b"nonsense")];
    for (first, (name, content)) in [10, 20, 30, 40].into_iter().zip(bad) {
        let path = setup.path("certs/server").join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let errors = || server.log().lines_with("ERROR    action: tls | result: fail | error: ").len();
        let before = errors();
        reload();
        common::until("an error", || errors() > before);
        fs::write(&path, good).unwrap();
        assert_eq!(alert(server.port(), &old), AlertDescription::CertificateRevoked);
        session.store(first.into(), &bets(1, first..first + 10));
        two.connect().classic(kind::RESULT_REQUEST, &[2], kind::IN_PROGRESS, b"");
    }
    session.end_agency();
    assert!(server.bets_file() == rows(&bets(1, 0..50)));
}

/// The bytes with which a client begins a handshake.
fn client_hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// The random number of the server's first message, which answers the client's first one.
fn server_random(mut client: Client) -> [u8; 32] {
    let mut hello = [0; 5 + 4 + 2 + 32];
    client.stream.read_exact(&mut hello).unwrap();
    assert_eq!((hello[0], hello[5]), (0x16, 0x02), "the server's first message");
    *hello.last_chunk().unwrap()
}

#[test]
fn each_handler_draws_its_own_random_numbers() {
    let server = tls_setup(1).start();
    let hello = client_hello();
    let randoms: std::collections::HashSet<_> = (0..1000)
        .map(|_| {
            let mut client = server.connect();
            client.send(&hello);
            server_random(client)
        })
        .collect();
    assert_eq!(randoms.len(), 1000);
}

#[test]
fn a_handshake_may_come_byte_by_byte_but_has_five_seconds() {
    let server = tls_setup(1).with("CLIENT_TIMEOUT", 1).start();
    let hello = client_hello();
    let mut slow = server.connect();
    for byte in &hello {
        slow.send(&[*byte]);
    }
    server_random(slow);
    // Half of a handshake, and no more.
    let begun = Instant::now();
    let mut half = server.connect();
    half.send(&hello[..hello.len() / 2]);
    let mut rest = Vec::new();
    half.stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x15, 3, 3, 0, 2, 1, 0], "the alert that ends TLS");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    server.wait_for_text(
        "action: client | result: fail | ip: 127.0.0.1 | error: it did not send a message in time",
    );
}

#[test]
fn a_client_that_has_sent_much_still_gets_the_alert() {
    let setup = tls_setup(1);
    let server = setup.start();
    let bets = bets_frame(0, &bets(1, 0..1000));
    let bytes = [open_frame(1, 1), bets.clone(), bets].concat();
    for _ in 0..20 {
        let refused = exchange(server.port(), &setup.path("certs/server"), &bytes[..60_000]);
        let expected = rustls::Error::AlertReceived(AlertDescription::UnsupportedCertificate);
        assert_eq!(refused, Err(expected));
    }
    assert_eq!(server.bets_file(), b"");
}

#[test]
fn no_session_is_resumed_and_no_early_data_is_taken() {
    let setup = tls_setup(1);
    let server = setup.start();
    let mut config = client_config(&agency_folder(&setup, 1), true);
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let config = std::sync::Arc::new(config);
    for _ in 0..2 {
        let mut tls = rustls::ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        let mut socket = server.connect().stream;
        assert!(tls.early_data().is_none());
        let mut stream = rustls::Stream::new(&mut tls, &mut socket);
        stream.write_all(&frame(kind::STATUS_REQUEST, b"")).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&kind::STATUS));
        assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!((tls.tls13_tickets_received(), tls.is_early_data_accepted()), (0, false));
    }
}
