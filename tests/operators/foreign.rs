//! A file of bets that a spreadsheet, an editor or a failing disk has changed: each program names the cause once, and the
//! commands that it gives bring the file back.

use std::process::Command;

use common::agencies::Agency;
use common::{Setup, output, server_of, text};

use super::audit::audit;

/// The rows of the tests: the fields of bets of agency 1.
const ROWS: [[&str; 6]; 3] = [
    ["1", "Santiago Lionel", "Lorca", "30904465", "1999-03-17", "7574"],
    ["1", "Inés", "Paz, hija", "5", "2000-02-29", "8574"],
    ["1", "Ana", "Gil", "06", "1984-11-14", "7574"],
];

/// A file that was saved again.
struct Changed {
    bytes: Vec<u8>,
    /// The first line that is named.
    line: u64,
    cause: &'static str,
    /// How many lines have this cause.
    lines: usize,
}

/// Writes rows as CSV. `skipped` columns are left out.
fn csv(rows: &[[&str; 6]], skipped: usize, separator: char, end: &str, quotes: bool) -> String {
    let field = |field: &&str| {
        if quotes || field.contains([separator, '"']) { format!("\"{field}\"") } else { (*field).to_owned() }
    };
    let line = |row: &[&str; 6]| {
        row[skipped..].iter().map(field).collect::<Vec<_>>().join(&separator.to_string()) + end
    };
    rows.iter().map(line).collect()
}

fn plain(skipped: usize) -> String {
    csv(&ROWS, skipped, ',', "\r\n", false)
}

/// The rows with one column written in another way.
fn with(skipped: usize, column: usize, value: fn(&str) -> String) -> String {
    let values = ROWS.map(|row| value(row[column]));
    let mut rows: [[&str; 6]; 3] = ROWS;
    rows.iter_mut().zip(&values).for_each(|(row, value)| row[column] = value);
    csv(&rows, skipped, ',', "\r\n", false)
}

/// What neither kind of file may be.
fn foreign_to_both(skipped: usize) -> Vec<Changed> {
    let good = plain(skipped);
    let utf16 = |bytes: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let marked = |bytes: fn(u16) -> [u8; 2]| [bytes(0xfeff).to_vec(), utf16(bytes)].concat();
    let latin1 = good.chars().map(|c| u8::try_from(c).unwrap()).collect::<Vec<u8>>();
    let header = ["agency,", "first_name,last_name,document,birthdate,number\r\n"][skipped..].concat();
    let separated = |separator, end| csv(&ROWS, skipped, separator, end, false);
    let number = |value| with(skipped, 5, value);
    let date = |value| with(skipped, 4, value);
    let zeros = [good.as_bytes(), &[0; 40], good.as_bytes()].concat();
    let open = good.replacen("Inés", "\"Inés", 1).replacen("\"Paz, hija\"", "Paz", 1);
    let (utf16_cause, semicolons) = ("the file is UTF-16", "the fields are separated by semicolons");
    let (number_cause, date_cause) = ("the number is formatted", "the birthdate is not written YYYY-MM-DD");
    let binary = "the file is a spreadsheet or compressed";
    [
        (b"PK\x03\x04\x14\0\x06\0\n\x9c\0\xff\r\n".to_vec(), 1, binary, 2),
        (b"\x1f\x8b\x08\0\xff\n\xfe\0\0\xc3\n".to_vec(), 1, binary, 2),
        (marked(u16::to_le_bytes), 1, utf16_cause, 3),
        (marked(u16::to_be_bytes), 1, utf16_cause, 3),
        (utf16(u16::to_le_bytes), 1, utf16_cause, 3),
        (separated(';', "\r\n").into(), 1, semicolons, 3),
        (separated(';', "\n").into(), 1, semicolons, 3),
        (separated('\t', "\r\n").into(), 1, "the fields are separated by tabs", 3),
        ((header + &good).into(), 1, "the line is a header", 1),
        (format!("sep=,\r\n{good}").into(), 1, "the line is a header", 1),
        (separated(',', ",\r\n").into(), 1, "the line ends with a comma", 3),
        (latin1, 2, "the line is not UTF-8 text, but perhaps Latin-1", 1),
        (date(|date| date.split('-').rev().collect::<Vec<_>>().join("/")).into(), 1, date_cause, 3),
        (date(|_| "11/14/84".to_owned()).into(), 1, date_cause, 3),
        (date(|date| format!("{date} 00:00:00")).into(), 1, date_cause, 3),
        (number(|number| number.replacen("574", ",574", 1)).into(), 1, number_cause, 3),
        (number(|number| format!("{number}.0")).into(), 1, number_cause, 3),
        (number(|number| number.replacen("574", ".574E3", 1)).into(), 1, number_cause, 3),
        (good.replace(",7574\r", ",7,574\r").into(), 1, number_cause, 2),
        (number(|number| format!(" {number}")).into(), 1, "there are spaces around a field", 3),
        (separated(',', "\r\n").replace(',', ", ").into(), 1, "there are spaces around a field", 3),
        (zeros, 4, "the line has zero bytes", 1),
        (open.into(), 2, "a quote that opens in this line is not closed in it", 1),
    ]
    .map(|(bytes, line, cause, lines)| Changed { bytes, line, cause, lines })
    .into()
}

/// What only `bets.csv` may not be.
fn foreign_to_the_server() -> Vec<Changed> {
    let good = plain(0);
    let mixed = good.replacen("8574\r\n", "8574\n", 1);
    let without_last_end = csv(&ROWS, 0, ',', "\n", false).trim_end().to_owned();
    let line_end = "the line does not end with CRLF";
    [
        (csv(&ROWS, 0, ',', "\n", false), 1, line_end, 3),
        (csv(&ROWS, 0, ',', "\r\r\n", false), 1, line_end, 3),
        (mixed, 2, line_end, 1),
        (without_last_end, 1, line_end, 2),
        (csv(&ROWS, 0, ',', "\r", false), 1, "the line ends with CR alone", 1),
        (csv(&[ROWS[0]; 100], 0, ',', "\r", false), 1, "the line ends with CR alone", 1),
        (format!("\u{feff}{good}"), 1, "a byte order mark precedes the line", 1),
        (csv(&ROWS, 0, ',', "\r\n", true), 1, "fields are in quotes without", 3),
        (csv(&ROWS, 0, ',', "\n", true), 1, "fields are in quotes without", 3),
        (good.replacen("8574\r\n", "8574\r\n\r\n", 1), 3, "the line is empty", 1),
        (format!("{good},,,,,\r\n"), 4, "the line is empty", 1),
    ]
    .map(|(text, line, cause, lines)| Changed { bytes: text.into(), line, cause, lines })
    .into()
}

fn foreign_bets() -> impl Iterator<Item = Changed> {
    foreign_to_both(0).into_iter().chain(foreign_to_the_server())
}

/// Executes the command that a message gives in parentheses, twice unless its result has to be moved. Returns the file, or
/// None if there was no command.
fn remedied(setup: &Setup, message: &str, name: &str) -> Option<Vec<u8>> {
    let start = ["(sed ", "(iconv "].iter().find_map(|start| message.find(start))? + 1;
    let ends = [") and put the result in its place", "); or ", ")"];
    let length = ends.iter().find_map(|end| message[start..].rfind(end))?;
    let command = &message[start..start + length];
    let (times, result) =
        if message.contains(ends[0]) { (1, format!("{name}.utf8")) } else { (2, name.to_owned()) };
    for _ in 0..times {
        let mut shell = Command::new("sh");
        let done = output(shell.args(["-c", command]).env("LC_ALL", "C.UTF-8").current_dir(setup.path(".")));
        assert!(done.status.success(), "{command}: {}", text(&done.stderr));
    }
    Some(std::fs::read(setup.path(&result)).unwrap())
}

#[test]
fn check_and_winners_name_each_cause_once_and_their_commands_bring_the_file_back() {
    for Changed { bytes, line, cause, lines } in foreign_bets() {
        let setup = Setup::new().write("my bets.csv", &bytes);
        for command in ["check", "winners"] {
            let audit = audit(&setup, &[command, "--file", "my bets.csv"]);
            assert_eq!((audit.code, &*audit.error), (Some(1), ""), "{}", audit.out);
            let errors: Vec<&str> = audit.out.lines().filter(|line| line.contains(": error: ")).collect();
            let [error] = errors[..] else { panic!("{cause}: {}", audit.out) };
            assert!(error.starts_with(&format!("my bets.csv:{line}: error: {cause}")), "{cause}: {error}");
            assert!(error.contains("restore both files from one backup"), "{error}");
            assert!(audit.out.contains(&format!("; errors: {lines}, notices: ")), "{cause}: {}", audit.out);
            assert!(lines == 1 || error.contains(&format!(" ({lines} lines: ")), "{error}");
            let check = "check again: loteria check --file 'my bets.csv'\n";
            assert_eq!(audit.out.contains(check), command == "winners", "{}", audit.out);
        }
        let said = audit(&setup, &["check", "--file", "my bets.csv"]).out;
        if let Some(file) = remedied(&setup, said.lines().next().unwrap(), "my bets.csv") {
            assert_eq!(String::from_utf8_lossy(&file), plain(0), "{cause}");
        }
    }
}

#[test]
fn a_server_names_the_cause_and_changes_nothing() {
    for Changed { bytes, line, cause, .. } in foreign_bets() {
        let setup = Setup::new().with("STORAGE_FILEPATH", "./my bets.csv").write("my bets.csv", &bytes);
        let ended = setup.run();
        assert_eq!(ended.code, Some(1), "{cause}: {}", ended.log.0);
        let said = ended.failure();
        assert!(said.contains(&format!(" | line: {line} | error: {cause}")), "{cause}: {said}");
        assert!(
            said.ends_with(
                "; nothing was changed; `loteria check --file './my bets.csv'` finds all such lines"
            )
        );
        assert!(std::fs::read(setup.path("my bets.csv")).unwrap() == bytes, "{cause}");
        if let Some(file) = remedied(&setup, &said, "my bets.csv") {
            assert_eq!(String::from_utf8_lossy(&file), plain(0), "{cause}");
        }
    }
}

#[test]
fn an_agency_names_the_cause_in_its_file_and_sends_nothing() {
    let server = server_of(1);
    for Changed { bytes, line, cause, .. } in foreign_to_both(1) {
        let setup = Setup::new().write("agency-1.csv", &bytes);
        let said = Agency::start(&setup.path("."), 1, &server.address(), &[]).fail();
        let expected = format!(" | file: ./agency-1.csv | line: {line} | error: {cause}");
        assert!(said.contains(&expected), "{cause}: {said}");
        if let Some(file) = remedied(&setup, &said, "agency-1.csv") {
            assert_eq!(String::from_utf8_lossy(&file), plain(1), "{cause}");
        }
    }
}

#[test]
fn an_agency_accepts_any_csv() {
    let server = server_of(6);
    let good = plain(1);
    let files = [
        csv(&ROWS, 1, ',', "\n", false),
        csv(&ROWS, 1, ',', "\r", false),
        format!("\u{feff}{good}"),
        csv(&ROWS, 1, ',', "\r\n", true),
        good.replace("\r\n", "\r\n\r\n"),
        good.replace("7574", "007574").trim_end().to_owned(),
    ];
    for (agency, file) in (1..).zip(files) {
        let setup = Setup::new().write(&format!("agency-{agency}.csv"), file);
        let running = Agency::start(&setup.path("."), agency, &server.address(), &[]);
        running.await_log("end_message | result: success", 1);
        let rows =
            plain(0).replace("\r\n1,", &format!("\r\n{agency},")).replacen('1', &agency.to_string(), 1);
        let stored = text(&server.bets_file());
        assert!(stored.ends_with(&rows), "{stored}");
    }
}

#[test]
fn an_export_of_a_spanish_spreadsheet_has_each_cause_once() {
    let rows = csv(&ROWS, 0, ';', "\r\n", false).replace("1999-03-17", "17/03/1999");
    let latin1: Vec<u8> = rows.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let setup = Setup::new().write("bets.csv", [&latin1[..], b"\r\n", &latin1].concat());
    let out = audit(&setup, &["check"]).out;
    let causes: Vec<&str> =
        out.lines().take(3).map(|line| line.split(&['(', ';'][..]).next().unwrap()).collect();
    assert_eq!(
        causes,
        [
            "./bets.csv:1: error: the fields are separated by semicolons, not by commas: save the file with commas, in UTF-8, with dates as YYYY-MM-DD",
            "./bets.csv:2: error: the line is not UTF-8 text, but perhaps Latin-1 or Windows-1252: if the whole file is, convert it ",
            "./bets.csv:4: error: the line is empty: remove it ",
        ]
    );
    assert!(out.lines().next().unwrap().ends_with(" (4 lines: 1, 3, 5, 7)"), "{out}");
    assert!(out.ends_with("errors: 7, notices: 0\n"), "{out}");
}
