//! The architecture: the modules of `src` stand in layers, and each uses only those below it. And that the tests which the
//! README names for its promises are there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top. Modules of one layer do not use each other.
const LAYERS: [&[&str]; 9] = [
    // The domain, which needs nothing; how a line is logged; what confines a handler, as a value.
    &["lottery", "logging", "confinement"],
    // What the operating system gives, made safe, which knows nothing of bets; the wire, which makes no system call.
    &["system", "protocol"],
    // Where a test has a process killed.
    &["failpoint"],
    // The channels between the server's processes; the settings; files that are made up.
    &["ipc", "config", "sample", "compose"],
    // A server is asked how it is, and how that looks.
    &["status"],
    // The two sides of a connection, which know nothing of each other.
    &["server", "agency"],
    // Reads what the server has written.
    &["audit"],
    // Runs the other programs as processes, and reads what they have written.
    &["demo"],
    // The command line, which starts all of it.
    &["cli"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The Rust files of a module: `name.rs` and all in the folder of that name.
fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(module).with_extension("rs")];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| path.is_file());
    files
}

/// The modules that some source names by `crate::`, in code: not in a comment, where they may stand as links.
fn used_by(source: &str) -> BTreeSet<String> {
    let code =
        source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => used.extend(heads(group)),
            None => used.extend(name(rest)),
        }
    }
    used
}

/// The first name of each path of a group such as `{a, b::{c, d}}`, of which the first brace is gone.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut found: Vec<_> = name(group.trim_start()).into_iter().collect();
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.extend(name(group.split_at(at + 1).1.trim_start())),
            _ => (),
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn name(path: &str) -> Option<String> {
    let end =
        path.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(path.len());
    (end > 0).then(|| path.split_at(end).0.to_owned())
}

#[test]
fn each_module_uses_only_those_of_the_layers_below_it() {
    let mut below: BTreeSet<String> = BTreeSet::new();
    for layer in LAYERS {
        for &module in layer {
            for file in files_of(module) {
                for used in used_by(&fs::read_to_string(&file).unwrap()) {
                    let file = file.display();
                    assert!(used == module || below.contains(&used), "{file}: `{module}` uses `{used}`");
                }
            }
        }
        below.extend(layer.iter().map(|&module| module.to_owned()));
    }
}

#[test]
fn each_module_has_its_layer() {
    let library = fs::read_to_string(source().join("lib.rs")).unwrap();
    let modules: BTreeSet<_> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert_eq!(modules, LAYERS.into_iter().flatten().copied().collect());
    for module in modules {
        assert!(!files_of(module).is_empty(), "{module}");
    }
}

#[test]
fn a_use_is_found_however_it_is_written() {
    let source = "
        //! [`crate::comment`]
        use crate::one::{Two, three};
        pub use crate::{
            four, // crate::comment
            five::{Six, seven},
            eight,
        };
        fn run() { crate::nine::run(); }
    ";
    assert_eq!(used_by(source).into_iter().collect::<Vec<_>>(), ["eight", "five", "four", "nine", "one"]);
}

/// The text of a test file, or for `--lib` of all sources.
fn tests_in(file: &str) -> String {
    if file == "--lib" {
        let library = fs::read_to_string(source().join("lib.rs")).unwrap();
        let modules = library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
        let files = modules.flat_map(|module| files_of(module.trim_end_matches(';')));
        return files.map(|file| fs::read_to_string(file).unwrap()).collect();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file).with_extension("rs");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_test_that_the_readme_names_for_a_promise_is_there() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, durability) = readme.split_once("| event | what holds | tests |\n|---|---|---|\n").unwrap();
    let rows = durability.lines().take_while(|line| line.starts_with('|'));
    let mut found = 0;
    for cell in rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next()) {
        for of_a_file in cell.split("; ") {
            let mut names = of_a_file.split('`').skip(1).step_by(2);
            let text = tests_in(names.next().unwrap());
            for name in names {
                let is_there =
                    [format!("fn {name}("), format!("    {name}: ")].iter().any(|form| text.contains(form));
                assert!(is_there, "the README names `{name}` in {of_a_file}");
                found += 1;
            }
        }
    }
    assert!(found > 40, "{found} tests are named: are they still found?");
}
