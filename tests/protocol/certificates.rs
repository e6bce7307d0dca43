//! TLS: which certificates a client can have, and what it is told if its own is not one of them.

use std::fs;
use std::path::{Path, PathBuf};

use common::tls::{
    agency_folder, alert, exchange, exchange_without_certificate, make_certificates, relay, tls_setup,
};
use common::{Client, Setup, bets, kind};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use rustls::AlertDescription;

/// Makes a folder like that of an agency, with a certificate of these names that `change` has changed. The authority of
/// `authority` signs it; without one it signs itself.
fn issue(
    setup: &Setup,
    authority: Option<&Setup>,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let certificate = match authority {
        None => params.self_signed(&key),
        Some(authority) => {
            let read = |name: &str| fs::read_to_string(authority.path("certs").join(name)).unwrap();
            let issuer = KeyPair::from_pem(&read("ca.key")).unwrap();
            params.signed_by(&key, &Issuer::from_ca_cert_pem(&read("ca.crt"), issuer).unwrap())
        }
    };
    let folder = tempfile::tempdir_in(setup.path("")).unwrap().keep();
    fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.join("tls.crt"), certificate.unwrap().pem()).unwrap();
    fs::copy(setup.path("certs/ca.crt"), folder.join("ca.crt")).unwrap();
    folder
}

fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_certificate_that_proves_nothing_gets_the_matching_alert_and_the_log_says_why() {
    use AlertDescription::{CertificateExpired, CertificateRevoked, UnknownCA, UnsupportedCertificate};
    let (ours, other) = (tls_setup(2), tls_setup(1));
    let none = |_: &mut CertificateParams| {};
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let names = &["agency-1"];
    let revoked = issue(&ours, None, names, none);
    copy(&agency_folder(&ours, 1), &revoked, &["tls.crt", "tls.key"]);
    make_certificates(&ours, 2, &["--revoke", "1"]);
    let unknown = "the certificate is not signed by an authority of ca.crt";
    let server = ours.start();
    for (folder, expected, reason) in [
        (issue(&ours, Some(&ours), names, expired), CertificateExpired, "the certificate has expired"),
        (issue(&ours, Some(&ours), names, early), CertificateExpired, "the certificate is not valid yet"),
        (revoked, CertificateRevoked, "the certificate has been revoked"),
        (issue(&ours, None, names, none), UnknownCA, unknown),
        (issue(&ours, Some(&other), names, none), UnknownCA, unknown),
        (ours.path("certs/server"), UnsupportedCertificate, "the certificate is not for TLS clients"),
    ] {
        let lines = || {
            let line = format!("action: authenticate | result: fail | ip: 127.0.0.1 | reason: {reason}");
            server.log().lines_with(&line).len()
        };
        let before = lines();
        assert_eq!(alert(server.port(), &folder), expected, "{reason}");
        common::until(reason, || lines() == before + 1);
    }
    assert_eq!(common::status(server.port())["ended"], 0);
}

#[test]
fn a_certificate_must_name_exactly_one_agency_or_the_operator() {
    let setup = tls_setup(2);
    let server = setup.start();
    for names in [
        &["agency-1", "agency-2"][..],
        &["agency-01"],
        &["agency-0"],
        &["agency-65536"],
        &["*.agency-1"],
        &["localhost"],
        &[],
    ] {
        let folder = issue(&setup, Some(&setup), names, |_| {});
        assert_eq!(alert(server.port(), &folder), AlertDescription::AccessDenied, "{names:?}");
    }
    let folder = issue(&setup, Some(&setup), &["agency-2"], |_| {});
    let status = exchange(server.port(), &folder, &[kind::STATUS_REQUEST, 0, 0, 0, 0]).unwrap();
    assert_eq!(status.first(), Some(&kind::STATUS));
}

#[test]
fn a_client_without_a_certificate_gets_its_alert_and_the_log_says_why() {
    let server = tls_setup(1).start();
    let refused = exchange_without_certificate(server.port(), &agency_folder(&server.setup(), 1), b"");
    let expected = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    assert_eq!(refused, Err(expected));
    server.wait_for_text("result: fail | ip: 127.0.0.1 | reason: peer sent no certificates");
}

/// By the recipe of docs/tls.md, with authorities that have the same name, and a list of what the old one has revoked.
#[test]
fn an_authority_is_replaced_while_agencies_go_on() {
    let setup = tls_setup(2);
    let path = |name: &str| setup.path(name);
    let server = setup.start();
    let revoked = path("revoked");
    fs::create_dir(&revoked).unwrap();
    copy(&agency_folder(&setup, 2), &revoked, &["tls.crt", "tls.key"]);
    make_certificates(&setup, 2, &["--revoke", "2"]);
    make_certificates(&setup, 2, &["--dir", "new"]);
    let both = [path("certs/ca.crt"), path("new/ca.crt")].map(|file| fs::read(file).unwrap()).concat();
    let folders = ["certs/server", "certs/agency-1", "certs/agency-2", "revoked"];
    let trust = |authorities: &[u8]| {
        for folder in folders {
            fs::write(path(folder).join("ca.crt"), authorities).unwrap();
        }
    };
    let reload = |count| {
        server.signal(Signal::SIGHUP);
        let loaded = || server.log().lines_with("action: tls | result: success").len();
        common::until("a keeper with the new files serves", || loaded() == count);
    };
    let is_accepted = |agency: u32| {
        let status =
            exchange(server.port(), &agency_folder(&setup, agency), &[kind::STATUS_REQUEST, 0, 0, 0, 0]);
        assert_eq!(status.unwrap().first(), Some(&kind::STATUS), "agency {agency}");
    };
    let mut session = Client::connect(relay(server.port(), &agency_folder(&setup, 1)));
    session.open_session(1);
    trust(&both);
    reload(2);
    for folder in ["agency-1", "server"] {
        copy(&path("new").join(folder), &path("certs").join(folder), &["tls.crt", "tls.key"]);
        is_accepted(1);
        is_accepted(2);
    }
    reload(3);
    is_accepted(1);
    is_accepted(2);
    assert_eq!(alert(server.port(), &revoked), AlertDescription::CertificateRevoked);
    trust(&fs::read(path("new/ca.crt")).unwrap());
    fs::remove_file(path("certs/server/ca.crl")).unwrap();
    reload(4);
    is_accepted(1);
    for old in [agency_folder(&setup, 2), revoked] {
        assert_eq!(alert(server.port(), &old), AlertDescription::UnknownCA);
    }
    session.store(0, &bets(1, 0..10));
}
