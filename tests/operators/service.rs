//! `docs/loteria.service`, judged by systemd.

use std::fs;
use std::process::Output;

use common::program::{PROGRAM, output_of_tool, text};

/// Runs `systemd-analyze` with these arguments on the unit, in which the program is the one under test. None without it.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("loteria.service");
    let shipped = include_str!("../../docs/loteria.service");
    fs::write(&unit, shipped.replace("/usr/local/bin/loteria", &PROGRAM)).unwrap();
    output_of_tool("systemd-analyze", &[arguments, &[unit.to_str().unwrap()]].concat())
}

#[test]
fn systemd_accepts_the_unit_without_a_warning() {
    let Some(output) = analyze(&["verify", "--man=no"]) else { return };
    let complaints = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}

#[test]
fn systemd_calls_the_exposure_of_the_unit_low() {
    // In tenths of its scale from 0 to 10.
    let Some(output) = analyze(&["security", "--offline=yes", "--no-pager", "--threshold=20"]) else {
        return;
    };
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
