//! `loteria certs`, checked with openssl.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::program::output_of_tool;
use common::tls::{agency_folder, exchange, make_certificates, tls_setup};
use common::{
    Client, Running, Setup, await_some, bets, free_port, kind, loteria, output, records, rows, text,
};

/// What openssl prints. It must succeed.
#[track_caller]
fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let printed = output(Command::new("openssl").args(arguments).current_dir(folder));
    assert!(printed.status.success(), "{arguments:?}: {}{}", text(&printed.stdout), text(&printed.stderr));
    text(&printed.stdout)
}

fn mode(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// All files below the folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_no_name_of_a_server_is_refused() {
    for name in ["http://lottery.example", "localhost:12345", "lottery.example,", "10.0.0.7/8"] {
        let setup = Setup::new();
        let mut command = loteria(&["certs", "--agencies", "1", "--server", name]);
        let output = output(command.current_dir(setup.path(".")));
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output.stderr).contains("a host name or an IP address"), "{name}");
        assert!(!setup.path("certs").exists());
    }
}

#[test]
fn openssl_accepts_each_certificate_for_its_purpose_and_no_other() {
    let setup = Setup::new();
    make_certificates(&setup, 2, &["--server", "lottery.example,10.0.0.7", "--days", "90"]);
    let folder = setup.path("certs");
    let verify = |purpose, name: &str| {
        let file = format!("{name}/tls.crt");
        let command = ["verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose", purpose, &file];
        output(Command::new("openssl").args(command).current_dir(&folder)).status.success()
    };
    for (name, is_server) in [("server", true), ("agency-1", false), ("agency-2", false), ("operator", false)]
    {
        assert_eq!(verify("sslserver", name), is_server, "{name}");
        assert_eq!(verify("sslclient", name), !is_server, "{name}");
        assert_eq!(
            fs::read(folder.join(name).join("ca.crt")).unwrap(),
            fs::read(folder.join("ca.crt")).unwrap()
        );
        let public = |arguments: &[&str]| openssl(&folder.join(name), arguments);
        assert_eq!(
            public(&["x509", "-in", "tls.crt", "-noout", "-pubkey"]),
            public(&["pkey", "-in", "tls.key", "-pubout"])
        );
        // Longer than 89 days and no longer than 90.
        let lasts = |days: u32| {
            let seconds = (days * 86_400).to_string();
            let command = ["x509", "-in", "tls.crt", "-noout", "-checkend", &seconds];
            output(Command::new("openssl").args(command).current_dir(folder.join(name))).status.success()
        };
        assert!(lasts(89) && !lasts(91), "{name}");
    }
    let names = |name: &str| {
        let file = format!("{name}/tls.crt");
        let printed = openssl(&folder, &["x509", "-in", &file, "-noout", "-ext", "subjectAltName"]);
        printed.lines().last().unwrap().trim().to_owned()
    };
    assert_eq!(names("server"), "DNS:lottery.example, IP Address:10.0.0.7");
    assert_eq!(names("agency-2"), "DNS:agency-2");
    assert_eq!(names("operator"), "DNS:operator");
}

#[test]
fn only_the_owner_reaches_the_keys_and_a_container_can_read_what_is_mounted() {
    let setup = Setup::new();
    make_certificates(&setup, 1, &[]);
    let folder = setup.path("certs");
    assert_eq!(mode(folder.clone()), 0o700);
    assert_eq!(mode(folder.join("ca.key")), 0o600);
    for name in ["server", "agency-1", "operator"] {
        assert_eq!(mode(folder.join(name)), 0o755);
        for file in ["tls.crt", "tls.key", "ca.crt"] {
            assert_eq!(mode(folder.join(name).join(file)), 0o644);
        }
    }
}

#[test]
fn what_exists_stays_and_what_is_missing_is_made() {
    let setup = Setup::new();
    make_certificates(&setup, 1, &[]);
    let folder = setup.path("certs");
    let before = files(&folder);
    make_certificates(&setup, 2, &[]);
    let after = files(&folder);
    assert!(before.iter().all(|file| after.contains(file)));
    assert_eq!(after.len(), before.len() + 3);
    fs::remove_dir_all(folder.join("agency-1")).unwrap();
    make_certificates(&setup, 2, &[]);
    assert_ne!(fs::read(folder.join("agency-1/tls.key")).unwrap(), before_file(&before, "agency-1/tls.key"));
    openssl(&folder, &["verify", "-CAfile", "ca.crt", "agency-1/tls.crt"]);
    // Without its key the authority can't go on, and nothing is replaced.
    fs::remove_file(folder.join("ca.key")).unwrap();
    let failed = output(loteria(&["certs", "--agencies", "3"]).current_dir(setup.path("")));
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("certs/ca.key: it is missing"), "{}", text(&failed.stderr));
    assert!(!folder.join("agency-3").exists());
}

fn before_file(files: &[(PathBuf, Vec<u8>)], name: &str) -> Vec<u8> {
    files.iter().find(|(path, _)| path.ends_with(name)).unwrap().1.clone()
}

#[test]
fn a_revoked_certificate_is_on_the_list_and_is_made_anew() {
    let setup = Setup::new();
    make_certificates(&setup, 2, &[]);
    let folder = setup.path("certs");
    let serial = |name: &str| {
        let file = format!("{name}/tls.crt");
        let printed = openssl(&folder, &["x509", "-in", &file, "-noout", "-serial"]);
        printed.trim().trim_start_matches("serial=").to_owned()
    };
    let [first, second] = ["agency-1", "agency-2"].map(serial);
    make_certificates(&setup, 2, &["--revoke", "1"]);
    make_certificates(&setup, 2, &["--revoke", "2"]);
    let list = openssl(&folder, &["crl", "-in", "server/ca.crl", "-CAfile", "ca.crt", "-noout", "-text"]);
    assert!(list.contains(&format!("Serial Number: {first}")), "{list}");
    assert!(list.contains(&format!("Serial Number: {second}")), "{list}");
    assert_ne!(serial("agency-1"), first);
    openssl(
        &folder,
        &["verify", "-crl_check", "-CRLfile", "ca.crl", "-CAfile", "ca.crt", "agency-1/tls.crt"],
    );
    let failed = output(loteria(&["certs", "--agencies", "2", "--revoke", "9"]).current_dir(setup.path("")));
    assert_eq!(text(&failed.stderr), "loteria: there is no certificate of agency 9 to revoke\n");
}

/// The block of docs/tls.md that begins so.
fn block(language: &str, begin: &str) -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tls.md")).unwrap();
    let block = page.split("```").find(|block| block.starts_with(&format!("{language}\n{begin}"))).unwrap();
    block.strip_prefix(language).unwrap().to_owned()
}

/// A certificate of agency 3 by the recipe with openssl, made where the authority is.
fn follow_recipe(setup: &Setup, tool: &str, begin: &str) -> Option<()> {
    output_of_tool(tool, &["version"])?;
    let made = output(Command::new("sh").args(["-ec", &block("sh", begin)]).current_dir(setup.path("certs")));
    assert!(made.status.success(), "{}", text(&made.stderr));
    Some(())
}

#[test]
fn the_recipes_with_openssl_and_step_make_certificates_that_a_server_accepts() {
    let setup = tls_setup(3);
    let server = setup.start();
    for (tool, begin) in [("openssl", "openssl req"), ("step", "step certificate create agency-3")] {
        if follow_recipe(&setup, tool, begin).is_some() {
            let status = exchange(server.port(), &setup.path("certs"), &[kind::STATUS_REQUEST, 0, 0, 0, 0]);
            assert_eq!(status.unwrap().first(), Some(&kind::STATUS), "{tool}");
            server.wait_for_text("result: success | ip: 127.0.0.1 | agency_id: 3");
            fs::remove_file(setup.path("certs/tls.key")).unwrap();
            fs::remove_file(setup.path("certs/tls.crt")).unwrap();
        }
    }
}

#[test]
fn classic_clients_come_through_a_tunnel() {
    let setup = tls_setup(1);
    let server = setup.start();
    let port = free_port();
    let configuration = block("ini", "[loteria]")
        .replace("127.0.0.1:12345", &format!("127.0.0.1:{port}"))
        .replace("server.example:12345", &format!("localhost:{}", server.port()))
        .replace("server.example", "localhost")
        .replace("/etc/loteria", &agency_folder(&setup, 1).display().to_string());
    let file = setup.clone().write("stunnel.conf", format!("foreground = yes\npid =\n{configuration}"));
    let log = fs::File::create(setup.path("stunnel.log")).unwrap();
    let mut stunnel = Command::new("stunnel");
    let Ok(_stunnel) = Running::try_start(stunnel.arg(file.path("stunnel.conf")).stderr(log)) else {
        eprintln!("skipped: stunnel is not installed");
        return;
    };
    let connect = || await_some("the tunnel is open", || Client::try_connect(port).ok());
    let own = bets(1, 0..20);
    connect().classic(kind::BET, &own[0].record(), kind::BET_ACK, b"OK");
    connect().classic(kind::MULTIPLE_BETS, &records(&own[1..]), kind::BET_ACK, b"OK");
    assert!(connect().refused(kind::BET, &bets(2, 0..1)[0].record()).contains("agency"));
    let mut end = connect();
    end.send_frame(kind::END, &[1]);
    end.half_close();
    end.expect_eof();
    connect().classic(kind::RESULT_REQUEST, &[1], kind::RESULT, b"");
    assert!(server.bets_file() == rows(&own));
}
