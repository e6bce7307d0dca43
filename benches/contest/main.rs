//! `cargo bench`: the release binary under load, in interleaved rounds with what it is compared with.
//!
//! `cargo bench` measures all rows, `cargo bench -- sessions start` some, `cargo bench -- --quick` less of each. The
//! bets are on the disk of the target folder. Progress is on standard error, one table on standard output.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]

mod baseline;
mod load;
mod machine;
mod measure;
mod memory;
mod process;
mod progress;
mod report;
mod rows;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use loteria::system::signal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::raise;
use tempfile::TempDir;

use rows::{Bench, Group, Size};

/// Measures the release binary, in interleaved rounds with what it is compared with.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --")]
struct Arguments {
    /// Fewer rounds and smaller sizes, and nothing at ten million bets
    #[arg(long)]
    quick: bool,
    /// What to measure; everything unless some are named
    #[arg(value_name = "ROW")]
    rows: Vec<Group>,
    /// Cargo says this when it benches, and not when it tests
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let done = match arguments.split_first_chunk() {
        Some(([_, command], rest)) if command == baseline::COMMAND => baseline::run(rest),
        _ => contest(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("contest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn contest(arguments: &Arguments) -> io::Result<()> {
    if !arguments.bench {
        println!("this is a benchmark: cargo bench");
        return Ok(());
    }
    raise_descriptor_limit()?;
    signal::block()?;
    let folder = tempfile::Builder::new().prefix("contest-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    clean_up_when_interrupted(folder.path().to_owned())?;
    let result = measure(arguments, &folder);
    folder.close()?;
    result
}

fn measure(arguments: &Arguments, folder: &TempDir) -> io::Result<()> {
    println!("{}", machine::describe(folder.path())?);
    let size = if arguments.quick { Size::QUICK } else { Size::FULL };
    println!("{}", size.describe());
    let bench = Bench::new(folder.path(), size);
    let mut failed = Vec::new();
    let mut rows = Vec::new();
    for group in Group::ALL {
        if arguments.rows.is_empty() || arguments.rows.contains(&group) {
            match group.run(&bench) {
                Ok(more) => rows.extend(more),
                Err(error) => failed.push(format!("{}: {error}", group.name())),
            }
        }
    }
    bench.progress.clear();
    println!("\n{}", report::table(&rows));
    if failed.is_empty() { Ok(()) } else { Err(io::Error::other(failed.join("\n"))) }
}

/// As many descriptors as this user can have: some rows hold a thousand connections.
fn raise_descriptor_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Has a thread wait for SIGINT and SIGTERM, which then removes the folder and ends this process by that signal. All
/// that was started ends with it.
fn clean_up_when_interrupted(folder: PathBuf) -> io::Result<()> {
    let cleaner = std::thread::Builder::new().name("cleaner".to_owned());
    cleaner.spawn(move || {
        let Ok(signal) = signal::wait_for_termination() else { return };
        remove(&folder);
        signal::unblock().ok();
        raise(signal).ok();
    })?;
    Ok(())
}

/// Removes a folder in which somebody may still be making files.
fn remove(folder: &Path) {
    for _ in 0..20 {
        if std::fs::remove_dir_all(folder).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
