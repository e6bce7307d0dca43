//! `cargo bench`: measures the release binary and its baselines under load, in interleaved rounds. See `README.md`.
//!
//! The bets are on the disk of the target folder. Progress goes to standard error, the table to standard output.
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
use std::sync::Mutex;
use std::time::Duration;

use clap::Parser;
use loteria::system::signal;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::raise;

use report::Row;
use rows::{Bench, Group, Size};

/// Measures the release binary and its baselines in interleaved rounds
#[derive(Debug, Parser)]
#[command(name = "cargo bench --")]
struct Arguments {
    /// Fewer rounds and smaller sizes, nothing at ten million bets
    #[arg(long)]
    quick: bool,
    /// The rows to measure; all unless some are named
    #[arg(value_name = "ROW")]
    rows: Vec<Group>,
    /// Cargo passes this for `cargo bench`, but not for `cargo test`
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

/// The rows, and the errors of the groups that failed.
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

/// Raises the limit of descriptors: some rows hold a thousand connections.
fn raise_descriptor_limit() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// Locked, and never unlocked, by the thread that ends this process: the main thread, or the cleaner after a signal.
static ENDING: Mutex<()> = Mutex::new(());

/// Starts a thread that waits for SIGINT and SIGTERM, removes the folder and ends this process by that signal. The kernel
/// then kills the children.
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

/// Removes a folder in which processes may still create files.
fn remove(folder: &Path) {
    for _ in 0..20 {
        if std::fs::remove_dir_all(folder).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
