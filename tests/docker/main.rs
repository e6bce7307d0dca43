//! Contests in containers. Each test needs a Docker engine and is skipped if none answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod certificates;
mod image;
mod page;

use std::time::Duration;

use common::compose::{Contest, docker, engine};
use common::processes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};

/// A configuration that makes a load slow enough to be interrupted.
const ONE_BET_A_MESSAGE: &str = "[DEFAULT]\n[AGENCY]\nBATCH_MAXAMOUNT = 1\n";
const INIT: &str = "services:\n  server:\n    init: true\n";

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

/// This user if the test runs as root, which may become any; else the user that it runs as.
fn user(id: u32) -> u32 {
    if getuid().is_root() { id } else { getuid().as_raw() }
}

/// Servers, each in a container.
struct Servers(Vec<String>);

impl Servers {
    /// Starts servers of a user that no other container has.
    fn start(count: usize, network: &str) -> Self {
        let mut this = Self(Vec::new());
        (0..count).for_each(|_| this.add(&["--user", "10777", "--network", network]));
        this
    }

    fn with_options(options: &[&str]) -> Self {
        let mut this = Self(Vec::new());
        this.add(options);
        this
    }

    fn add(&mut self, options: &[&str]) {
        let name = format!("loteria-test-server-{}-{}", std::process::id(), self.0.len());
        docker(&[&["run", "--detach", "--name", &name], options, &["loteria", "server"]].concat());
        self.0.push(name);
        self.wait_for_last();
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
        docker(&["rm", "--force", "--volumes"].into_iter().chain(names).collect::<Vec<_>>());
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
