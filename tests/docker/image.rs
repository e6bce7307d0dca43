//! The image, alone and in the compose file.

use std::os::unix::fs::chown;
use std::process::Command;

use common::compose::{Contest, docker, engine};
use common::{Log, output, text};

use super::{ONE_BET_A_MESSAGE, Servers, user};

#[test]
fn the_image_is_small_and_its_processes_have_no_rights() {
    let Some(_turn) = engine() else { return };
    let size: u64 = docker(&["image", "inspect", "--format", "{{.Size}}", "loteria"]).trim().parse().unwrap();
    assert!(size < 10_000_000, "{size} bytes");
    let contest = Contest::of_agencies("rights", &[10]);
    let contest = contest.with_file("config.ini", ONE_BET_A_MESSAGE);
    contest.up();
    for service in ["server", "client1"] {
        let value = |value| contest.inspect(service, value);
        assert_eq!(value(".Config.User"), "10001:10001");
        assert_eq!(value(".HostConfig.ReadonlyRootfs"), "true");
        assert_eq!(value("json .HostConfig.CapDrop"), r#"["ALL"]"#);
        assert_eq!(value("json .HostConfig.SecurityOpt"), r#"["no-new-privileges:true"]"#);
        assert_eq!(value(".HostConfig.LogConfig.Type"), "json-file");
        assert_eq!(value(r#"index .HostConfig.LogConfig.Config "max-file""#), "3");
    }
    // Landlock depends on the engine and the kernel.
    let log = contest.log("server");
    for (layer, extent) in [("identity", "partial"), ("limits", "full"), ("seccomp", "full")] {
        assert_eq!(log.value("confinement", layer).as_deref(), Some(extent));
    }
}

#[test]
fn a_server_of_the_image_alone_keeps_its_bets_in_data() {
    let Some(_turn) = engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let owner = user(10_779);
    chown(folder.path(), Some(owner), None).unwrap();
    let bind = format!("{}:/data", folder.path().display());
    let volume = format!("loteria-test-data-{}", std::process::id());
    let named = format!("{volume}:/data");
    for options in [
        &[][..],
        &["--volume", "/data", "--read-only"],
        &["--tmpfs", "/data", "--read-only"],
        &["--volume", &named, "--user", "10778"],
        &["--volume", &bind, "--user", &owner.to_string()],
    ] {
        let servers = Servers::with_options(options);
        let [log] = &servers.logs()[..] else { panic!("one server") };
        assert_eq!(log.value("config", "storage_filepath").as_deref(), Some("/data/bets.csv"));
        assert!(log.value("listen", "port").is_some(), "{options:?}: {}", log.0);
    }
    docker(&["volume", "rm", &volume]);
    assert!(folder.path().join("bets.csv").exists());
}

/// Runs the image with these options until it ends. Returns its exit code and its log.
fn run(options: &[&str]) -> (Option<i32>, Log) {
    let mut docker = Command::new("docker");
    let output = output(docker.args(["run", "--rm"]).args(options).args(["loteria", "server"]));
    (output.status.code(), Log(text(&output.stderr)))
}

#[test]
fn what_stops_a_server_of_the_image_is_said() {
    let Some(_turn) = engine() else { return };
    let (code, log) = run(&["--read-only"]);
    assert_eq!(code, Some(1));
    assert!(log.value("recovery", "error").unwrap().contains("Read-only file system"), "{}", log.0);
    let (code, log) = run(&["--env", "TZ=Nowhere/City"]);
    assert_eq!((code, log.value("config", "key").as_deref()), (Some(2), Some("TZ")), "{}", log.0);
    let (code, log) = run(&["--env", "TZ=Asia/Tokyo", "--env", "LOG_FORMAT=json", "--read-only"]);
    assert_eq!(code, Some(1));
    assert!(log.0.lines().all(|line| line.contains(r#"+09:00","level""#)), "{}", log.0);
}
