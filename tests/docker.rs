//! Contests in containers. Each test needs a Docker engine and is skipped if none answers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use common::compose::{Contest, docker, engine};
use common::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A configuration that makes a load slow enough to be interrupted.
const ONE_BET_A_MESSAGE: &str = "[DEFAULT]\n[AGENCY]\nBATCH_MAXAMOUNT = 1\n";
const INIT: &str = "services:\n  server:\n    init: true\n";

#[test]
fn a_checkout_runs_the_whole_contest_and_runs_it_again() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_checkout();
    contest.compose(&["up", "--build", "--detach"]);
    contest.wait_for_winners(1);
    contest.assert_all_stored_once();
    contest.up();
    contest.wait_for_winners(2);
    contest.compose(&["down"]);
    contest.up();
    contest.wait_for_winners(1);
    contest.assert_all_stored_once();
    assert!(contest.log("client1").has("open_session | result: success | agency_id: 1 | stored: 9000"));
}

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
fn the_metrics_are_a_service_that_runs_only_with_its_profile() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_agencies("metrics", &[10]).with_file("config.ini", "[DEFAULT]\n");
    contest.up();
    contest.wait_for_winners(1);
    let running = || contest.compose(&["ps", "--all", "--services"]);
    assert!(!running().contains("metrics"), "{}", running());
    contest.compose(&["--profile", "metrics", "up", "--detach", "metrics"]);
    contest.until("the metrics tell of all bets", || {
        let text = scrape().unwrap_or_default();
        text.contains("\nloteria_up 1\n") && text.contains("\nloteria_bets_stored_total 10\n")
    });
    contest.compose(&["--profile", "metrics", "stop", "metrics"]);
    assert_eq!(contest.inspect("metrics", ".State.ExitCode"), "0", "{}", contest.log("metrics").0);
}

/// The reply of the metrics service at its published port.
fn scrape() -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9464")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_change_of_the_configuration_needs_no_build() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_agencies("config", &[10]);
    let contest = contest.with_file("config.ini", "[DEFAULT]\nLOTTERY_WINNER_NUMBER = 1\n");
    let built = docker(&["image", "inspect", "--format", "{{.Id}}", "loteria"]);
    let winning = |log: &common::Log| log.value("config", "lottery_winner_number");
    contest.up();
    assert_eq!(winning(&contest.log("server")).as_deref(), Some("1"));
    contest.compose(&["down", "--volumes"]);
    let contest = contest.with_file("config.ini", "[DEFAULT]\nLOTTERY_WINNER_NUMBER = 7574\n");
    contest.up();
    assert_eq!(winning(&contest.log("server")).as_deref(), Some("7574"));
    assert_eq!(contest.inspect("server", ".Image"), built.trim());
}

#[test]
fn a_server_that_is_pid_1_is_killed_paused_and_stopped_and_nothing_is_lost() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_agencies("pid1", &[40_000, 40_000, 0]);
    check_kill_pause_and_stop(&contest.with_file("config.ini", ONE_BET_A_MESSAGE));
}

#[test]
fn a_server_below_an_init_is_killed_paused_and_stopped_and_nothing_is_lost() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_agencies("init", &[40_000, 40_000, 0]);
    let contest = contest.with_file("config.ini", ONE_BET_A_MESSAGE);
    check_kill_pause_and_stop(&contest.with_file("docker-compose.override.yaml", INIT));
}

fn check_kill_pause_and_stop(contest: &Contest) {
    contest.up();
    contest.wait_for_load();
    contest.compose(&["kill", "-s", "KILL", "server"]);
    contest.until("the server is dead", || contest.inspect("server", ".State.Running") == "false");
    // The agencies still run and reconnect. Only the server has to be started.
    contest.compose(&["up", "--detach", "server"]);
    contest.wait_for_load();
    let both = ["server", "client1"];
    contest.compose(&[&["pause"], &both[..]].concat());
    std::thread::sleep(Duration::from_secs(6));
    contest.compose(&[&["unpause"], &both[..]].concat());
    contest.wait_for_winners(1);
    contest.assert_all_stored_once();
    make_orphans(contest);
    let pid_1: i32 = contest.inspect("server", ".State.Pid").parse().unwrap();
    contest.until("all are reaped", || processes::unreaped_children_of(pid_1) == 0);
    let taken = contest.stop_server();
    assert!(taken < Duration::from_secs(1), "{taken:?}");
}

/// Kills a process in the container that has children, so that PID 1 becomes their parent.
fn make_orphans(contest: &Contest) {
    let server = contest.container("server");
    docker(&["exec", "--detach", &server, "/loteria", "demo", "--bets", "1000000", "--dir", "/data/demo"]);
    let demo = || {
        let processes = docker(&["top", &server, "-eo", "pid,args"]);
        let line = processes.lines().find(|line| line.contains("/loteria demo"))?;
        line.split_whitespace().next()?.parse::<i32>().ok()
    };
    contest
        .until("the demo has children", || docker(&["top", &server, "-eo", "pid,args"]).contains("agency"));
    // This needs an engine on this machine.
    let pid = Pid::from_raw(demo().unwrap());
    kill(pid, Signal::SIGKILL).expect("a process of this machine");
    contest.until("the demo is dead", || demo().is_none());
}

#[test]
fn agencies_that_lose_their_network_come_back_and_go_on() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_agencies("cut", &[60_000, 0]);
    let contest = contest.with_file("config.ini", ONE_BET_A_MESSAGE);
    contest.up();
    contest.wait_for_load();
    let network = contest.container("server").replace("-server-1", "_contest");
    // The first client sends bets, the second waits for the draw.
    let clients = ["client1", "client2"].map(|client| contest.container(client));
    for client in &clients {
        docker(&["network", "disconnect", &network, client]);
    }
    // Other containers take the two addresses, so that the clients get new ones.
    let others = Servers::start(2, &network);
    for client in &clients {
        docker(&["network", "connect", &network, client]);
    }
    contest.wait_for_winners(1);
    drop(others);
    contest.assert_all_stored_once();
    for client in ["client1", "client2"] {
        let opened = contest.log(client).lines_with("action: open_session | result: success").len();
        assert_eq!(opened, 2, "{client} had another address, and must have come back");
    }
}

#[test]
fn fourteen_servers_of_one_user_run_and_the_fifteenth_says_what_to_do() {
    let Some(_turn) = engine() else { return };
    let servers = Servers::start(15, "bridge");
    let logs = servers.logs();
    let listening = logs.iter().filter(|log| log.value("listen", "port").is_some()).count();
    let small = logs.iter().filter(|log| log.value("request_queue", "messages").is_some()).count();
    assert_eq!((listening, small), (14, 5));
    let error = logs[14].value("server", "error").unwrap();
    assert!(error.contains("ulimit -q") && error.contains("another user"), "{error}");
}

/// Servers of one user, each in a container.
struct Servers(Vec<String>);

impl Servers {
    fn start(count: usize, network: &str) -> Self {
        let mut this = Self(Vec::new());
        for index in 0..count {
            let name = format!("loteria-test-queues-{}-{index}", std::process::id());
            // No other container has this user.
            let options = ["--user", "10777", "--tmpfs", "/tmp", "-e", "STORAGE_FILEPATH=/tmp/bets.csv"];
            let place = ["--name", &name, "--network", network];
            docker(&[&["run", "--detach"], &place[..], &options[..], &["loteria", "server"]].concat());
            this.0.push(name);
            this.wait_for_last();
        }
        this
    }

    fn wait_for_last(&self) {
        let Some(name) = self.0.last() else { return };
        common::until("the server listens, or gives up", || {
            let log = docker(&["logs", name]);
            log.contains("action: listen") || log.contains("CRITICAL")
        });
    }

    fn logs(&self) -> Vec<common::Log> {
        self.0.iter().map(|name| common::Log(docker(&["logs", name]))).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let names = self.0.iter().map(String::as_str);
        docker(&["rm", "--force"].into_iter().chain(names).collect::<Vec<_>>());
    }
}

#[test]
fn fifty_agencies_take_part() {
    let Some(_turn) = engine() else { return };
    let contest = Contest::of_agencies("fifty", &[200; 50]);
    let contest = contest.with_file("config.ini", "[DEFAULT]\n");
    contest.up();
    contest.wait_for_winners(1);
    contest.assert_all_stored_once();
}
