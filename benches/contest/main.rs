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
#[path = "../../tests/common/processes.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "as the tests have it")]
mod processes;
mod progress;
mod report;
mod rows;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser;
use loteria::system::signal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::raise;

use report::Row;
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
    let measured = measure(arguments, folder.path());
    let _ending = ENDING.lock();
    folder.close()?;
    let Measured { rows, failed } = measured?;
    println!("\n{}", report::table(&rows));
    if failed.is_empty() { Ok(()) } else { Err(io::Error::other(failed.join("\n"))) }
}

/// The rows, and what went wrong in groups that have none.
struct Measured {
    rows: Vec<Row>,
    failed: Vec<String>,
}

fn measure(arguments: &Arguments, folder: &Path) -> io::Result<Measured> {
    println!("{}", machine::describe(folder)?);
    let size = if arguments.quick { Size::QUICK } else { Size::FULL };
    println!("{}", size.describe());
    let bench = Bench::new(folder, size);
    let mut measured = Measured { rows: Vec::new(), failed: Vec::new() };
    for group in Group::ALL {
        if arguments.rows.is_empty() || arguments.rows.contains(&group) {
            match group.run(&bench) {
                Ok(rows) => measured.rows.extend(rows),
                Err(error) => measured.failed.push(format!("{}: {error}", group.name())),
            }
        }
    }
    bench.progress.clear();
    Ok(measured)
}

/// As many descriptors as this user can have: some rows hold a thousand connections.
fn raise_descriptor_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Held by whoever ends this process, and never given back: the thread that was told by a signal to clean up, or the one
/// that has measured.
static ENDING: Mutex<()> = Mutex::new(());

/// Has a thread wait for SIGINT and SIGTERM, which then removes the folder and ends this process by that signal. All
/// that was started ends with it.
fn clean_up_when_interrupted(folder: PathBuf) -> io::Result<()> {
    let cleaner = std::thread::Builder::new().name("cleaner".to_owned());
    cleaner.spawn(move || {
        let Ok(signal) = signal::wait_for_termination() else { return };
        let _ending = ENDING.lock();
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
