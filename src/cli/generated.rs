//! Generated from the command line: completions for shells and pages for `man`.

use std::io;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

const NAME: &str = "loteria";

pub const COMPLETIONS_HELP: &str = "For bash, in ~/.bashrc:\n  source <(loteria completions bash)\n\nFor zsh, in a \
folder of $fpath:\n  loteria completions zsh > _loteria\n\nFor fish:\n  loteria completions fish > \
~/.config/fish/completions/loteria.fish";

pub const MAN_HELP: &str = "To read one:\n  loteria man > loteria.1; man ./loteria.1\n\nTo install the page of \
a command:\n  loteria man server > /usr/local/share/man/man1/loteria-server.1";

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that completes commands and flags
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command of the page [default: the program]
    #[arg(value_parser = PAGES)]
    command: Option<String>,
}

/// The commands. A test compares them with the command line, which cannot be asked while it is being defined.
const PAGES: [&str; 11] = [
    "server",
    "agency",
    "demo",
    "sample",
    "status",
    "bet",
    "winners",
    "check",
    "completions",
    "man",
    "compose",
];

pub fn completions(args: &CompletionsArgs) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    script
}

/// A page, in `man`'s own format.
pub fn man(args: &ManArgs) -> io::Result<Vec<u8>> {
    let mut program = Cli::command();
    program.build();
    let page = args.command.as_ref().and_then(|name| program.find_subcommand(name)).unwrap_or(&program);
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(page.clone()).source(concat!("loteria ", env!("CARGO_PKG_VERSION")));
    man.render(&mut text)?;
    Ok(with_notes(&String::from_utf8_lossy(&text)).into_bytes())
}

/// Changes the help behind the flags from a terminal's layout to that of `man`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_page() {
        assert!(Cli::command().get_subcommands().map(clap::Command::get_name).eq(PAGES));
    }
}
