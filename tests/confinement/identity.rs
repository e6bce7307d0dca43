//! Who a handler is, and what it knows of other clients.

use std::collections::BTreeMap;
use std::fs;

use common::{Setup, bets, status, until};

#[test]
fn a_handler_has_no_rights_and_the_server_reports_its_confinement() {
    let server = Setup::new().start();
    let (_client, _) = server.session(1);
    let (_second, _) = server.session(2);
    let in_force = &status(server.port())["confinement"];
    let log = server.log();
    for layer in ["identity", "limits", "landlock", "seccomp"] {
        assert_eq!(log.value("confinement", layer).as_deref(), in_force[layer].as_str(), "{layer}");
    }
    until("the handler that answered the status has ended", || server.handlers().len() == 2);
    let seen: Vec<BTreeMap<String, String>> = server.handlers().into_iter().map(status_of).collect();
    for status in &seen {
        assert_eq!(status["NoNewPrivs"], "1");
        assert_eq!(status["CapEff"].trim_start_matches('0'), "");
        assert_eq!(status["Seccomp"], if in_force["seccomp"] == "full" { "2" } else { "0" });
    }
    if in_force["identity"] == "full" {
        assert_ne!(seen[0]["Uid"], seen[1]["Uid"]);
        assert!(seen.iter().all(|status| !status["Uid"].split_whitespace().any(|uid| uid == "0")));
    }
}

fn status_of(pid: i32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
}

/// A client's token in its handler's memory: in a request it is at a fixed distance before the rows (see `PartHead`).
fn token_in(memory: &[u8], row: &[u8]) -> Option<Vec<u8>> {
    // Token 16, number 4, request: some 1, kind 4, first: some 1 and 8, last 1.
    let head = 16 + 4 + 1 + 4 + 1 + 8 + 1;
    memory
        .windows(head + row.len())
        .filter(|window| window.ends_with(row))
        .map(|window| &window[..head])
        .find(|head| head[20] == 1 && head[25] == 1)
        .map(|head| head[..16].to_vec())
}

/// The writable memory of a process. Empty if this process may not read it.
fn memory_of(pid: i32) -> Vec<u8> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else { return Vec::new() };
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(u64::from_str_radix(to, 16).unwrap() - from).unwrap()];
        if std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from).is_ok() {
            all.extend_from_slice(&bytes);
        }
    }
    all
}

#[test]
fn no_handler_has_the_token_of_another() {
    let server = Setup::new().start();
    let mut clients = Vec::new();
    let mut handlers: Vec<i32> = Vec::new();
    for agency in 1..=3 {
        let (mut client, _) = server.session(agency);
        client.store(0, &bets(agency, 0..3));
        handlers
            .extend(server.handlers().into_iter().filter(|pid| !handlers.contains(pid)).collect::<Vec<_>>());
        clients.push(client);
    }
    let memories: Vec<Vec<u8>> = handlers.iter().map(|pid| memory_of(*pid)).collect();
    if memories.iter().any(Vec::is_empty) {
        println!("skipped: the memory of a handler may not be read by this user");
        return;
    }
    for (own, agency) in (1..=3).enumerate() {
        let row = common::rows(&bets(agency, 0..1));
        let token = token_in(&memories[own], &row).unwrap();
        for (other, memory) in memories.iter().enumerate().filter(|(other, _)| *other != own) {
            let knows = memory.windows(token.len()).any(|window| window == token);
            assert!(!knows, "handler {other} knows the token of {own}");
        }
    }
}
