//! Texts made from the command line: completions for shells, pages for `man`.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::args::Cli;

pub(super) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "loteria", &mut script);
    script
}

/// Makes the manual page of a command, or of the program.
pub(super) fn man(command: Option<&str>) -> io::Result<String> {
    let mut program = Cli::command();
    program.build();
    let page = command.and_then(|name| program.find_subcommand(name)).unwrap_or(&program);
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(page.clone()).source(concat!("loteria ", env!("CARGO_PKG_VERSION")));
    man.render(&mut text)?;
    Ok(with_notes(&String::from_utf8_lossy(&text)))
}

/// Changes the layout of the text below the flags from that of a terminal to that of `man`.
fn with_notes(page: &str) -> String {
    let Some((page, help)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let notes = help.lines().map(|line| match (line.strip_prefix("          "), line.strip_prefix("  ")) {
        (Some(meaning), _) => format!("{meaning}\n"),
        (_, Some(example)) if example.contains(' ') => format!(".EX\n  {example}\n.EE\n"),
        (_, Some(setting)) => format!(".TP\n\\fB{setting}\\fR\n"),
        _ if line.is_empty() => ".PP\n".to_owned(),
        _ => format!("{line}\n"),
    });
    format!("{page}.SH NOTES\n{}", notes.collect::<String>())
}
