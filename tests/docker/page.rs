//! The README and `docs/containers.md`, word for word: their commands in order, with a project and ports of the test's own.

use std::fs;
use std::process::Command;

use chrono::{DateTime, NaiveDateTime, TimeDelta};
use common::compose::{Contest, docker, engine};
use common::free_port;

const PAGE: &str = include_str!("../../docs/containers.md");

/// The section of the README after which the page begins.
fn first() -> &'static str {
    include_str!("../../README.md")
        .split("\n### ")
        .find(|section| section.starts_with("In containers\n"))
        .unwrap()
}

/// The commands of the sections, with the headings.
fn sections() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    [first()].into_iter().chain(PAGE.split("\n## ").skip(1)).filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let text = text.split("\n## ").next()?;
        let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        Some((heading, blocks.collect::<Vec<_>>())).filter(|(_, blocks)| !blocks.is_empty())
    })
}

#[test]
fn the_commands_of_the_page_work_in_their_order() {
    let Some(_turn) = engine() else { return };
    let mut contest = Contest::of_checkout();
    let [port, metrics] = [(); 2].map(|()| free_port().to_string());
    let lottery = Lottery(format!("{}-lottery", contest.project()));
    let own = |commands: &str| {
        let commands = commands.replace("12345:12345", &format!("{port}:12345")).replace("9464", &metrics);
        commands.replace("localhost:12345", &format!("localhost:{port}")).replace("lottery", &lottery.0)
    };
    let variables = [("METRICS_ADDRESS", &*format!("127.0.0.1:{metrics}"))];
    let mut functions = String::new();
    for (heading, blocks) in sections() {
        let mut said = String::new();
        for block in blocks {
            if block.starts_with("loteria() {") {
                functions.push_str(block);
            } else {
                said += &contest.run(&format!("{functions}{}", own(block)), &variables);
            }
        }
        contest = check(heading, &said, contest);
    }
}

/// The container and the volume of the section about the image alone.
struct Lottery(String);

impl Drop for Lottery {
    fn drop(&mut self) {
        let remove = |arguments: &[&str]| Command::new("docker").args(arguments).arg(&self.0).output().ok();
        remove(&["rm", "--force"]);
        remove(&["volume", "rm", "--force"]);
    }
}

/// Panics unless the commands of a section did what it says.
fn check(heading: &str, said: &str, mut contest: Contest) -> Contest {
    let says = |text: &str| assert!(said.contains(text), "{heading}: no {text:?} in\n{said}");
    match heading {
        "In containers" => says("\n0\n0\n0\n0\n0\n"),
        "A contest" => {
            says("\n0\n0\n0\n0\n0\n");
            contest.wait_for_winners(1);
            contest.assert_all_stored_once();
        }
        "Look at it" => {
            says("agencies ended    5 of 5\n");
            says("\n     all        20000           24\n");
            says("errors: 0, notices: 0");
        }
        "Stop and start" => says("bets stored       20000\n"),
        "Settings" => {
            says("LOGGING_LEVEL          DEBUG       config.ini line ");
            assert_is_local_time(&docker(&["logs", "--timestamps", &contest.container("server")]));
        }
        "Back up and restore" => {
            says("/data/bets.csv: the file of the draw: 20000 bets");
            assert_eq!(fs::read_to_string(contest.path("backup/bets.csv")).unwrap(), contest.bets_file());
        }
        "Another contest" => {
            contest = contest.with_agencies(8, "data8");
            contest.wait_for_winners(1);
            contest.assert_all_stored_once();
        }
        "Agencies outside" => {
            says("agencies ended    2 of 2\n");
            contest = contest.with_agencies(2, ".");
            contest.assert_all_stored_once();
        }
        "Certificates" => {
            contest = contest.with_agencies(5, "tests/data");
            contest.wait_for_winners(1);
            contest.assert_all_stored_once();
            let log = contest.log("server");
            for (event, count) in
                [("action: tls | result: success", 2), ("action: authenticate | result: success", 5)]
            {
                assert_eq!(log.lines_with(event).len(), count, "{event}");
            }
        }
        "Metrics" => says("loteria_up 1\n"),
        "Clean up" => {
            let label = format!("label=com.docker.compose.project={}", contest.project());
            for list in
                [&["ps", "--all", "--quiet"][..], &["volume", "ls", "--quiet"], &["network", "ls", "--quiet"]]
            {
                assert_eq!(docker(&[list, &["--filter", &label]].concat()), "", "{list:?}");
            }
        }
        "The image alone" => says("bets stored       0\n"),
        _ => panic!("nothing checks what the section {heading:?} does"),
    }
    contest
}

/// Panics unless the last line of the log has the time of Buenos Aires. The engine has written its own time before it.
fn assert_is_local_time(log: &str) {
    let (engine, line) = log.lines().last().and_then(|line| line.split_once(' ')).unwrap();
    let engine = DateTime::parse_from_rfc3339(engine).unwrap().naive_utc();
    let own = NaiveDateTime::parse_from_str(&line[..19], "%Y-%m-%d %H:%M:%S").unwrap();
    let behind = engine - own - TimeDelta::hours(3);
    assert!(behind.abs() < TimeDelta::minutes(1), "{log}");
}
