//! The machine on which the numbers were measured.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use crate::measure::Series;

/// About the size of one batch.
const BYTES: usize = 6000;
const SYNCS: usize = 300;

/// One line: cores, kernel, time of a sync.
pub fn describe(folder: &Path) -> io::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let sync = sync_times(&folder.join("syncs"))?;
    let (low, high) = sync.spread();
    Ok(format!(
        "machine: {cores} cores, Linux {}, fdatasync {:.2} ms ({:.2} - {:.2})",
        kernel.trim(),
        sync.median() * 1e3,
        low * 1e3,
        high * 1e3
    ))
}

fn sync_times(path: &Path) -> io::Result<Series> {
    let mut file = File::create(path)?;
    let mut times = Series::default();
    for _ in 0..SYNCS {
        file.write_all(&[b'x'; BYTES])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64());
    }
    fs::remove_file(path)?;
    Ok(times)
}
