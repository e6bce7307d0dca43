//! `loteria winners` and `loteria check`, on files that a server or the test wrote.

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use common::program::PROGRAM;
use common::terminal::OnTerminal;
use common::{Bet, Running, Setup, bets, kind, loteria, output, rows, server_of, text, until, winner};

/// The exit code and the outputs of an audit.
#[derive(Debug)]
pub struct Audit {
    pub code: Option<i32>,
    pub out: String,
    pub error: String,
}

impl Audit {
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!((self.code, &*self.error), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// The lines of its table, as words.
    fn table(&self) -> Vec<Vec<&str>> {
        let words = self.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .skip_while(|words| words.first() != Some(&"agency"))
            .take_while(|words| words.len() == 3)
            .collect()
    }
}

fn command(setup: &Setup, arguments: &[&str]) -> Command {
    let mut command = loteria(arguments);
    command.current_dir(setup.path("."));
    command
}

pub fn audit(setup: &Setup, arguments: &[&str]) -> Audit {
    let output = output(&mut command(setup, arguments));
    Audit { code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) }
}

/// A folder with these bets and this state file.
fn folder(bets: &[Bet], state: &str) -> Setup {
    Setup::new().write("bets.csv", rows(bets)).write("bets.csv.state", state)
}

const DRAWN: &str = r#"{"version":1,"ended":[1,2],"draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7574}}"#;

/// The bets of two agencies, with three winners: one of agency 1 and two of agency 2.
fn contest() -> Vec<Bet> {
    let mut all = bets(1, 0..10);
    all.push(winner(2, "20"));
    all.push(winner(1, "quo\"ted, 1"));
    all.extend(bets(2, 0..5));
    all.push(winner(2, "3"));
    all
}

fn contest_winners() -> Vec<Bet> {
    contest().into_iter().filter(|bet| bet.number == 7574).collect()
}

#[test]
fn a_contest_is_recounted_while_its_server_runs() {
    let server = server_of(2);
    let setup = server.setup();
    for bet in contest() {
        server.connect().classic(kind::BET, &bet.record(), kind::BET_ACK, b"OK");
    }
    let before = audit(&setup, &["winners"]);
    assert!(before.out.contains("; 0 of 5 agencies (CLIENTS_AMOUNT) ended; "), "{}", before.out);
    before.good();
    server.connect().send(&common::frame(kind::END, &[1]));
    server.wait_for("end_message | result: success | agency_id: 1");
    let halfway = audit(&setup, &["winners"]);
    assert!(halfway.out.contains("; 1 of 5 agencies (CLIENTS_AMOUNT) ended; "), "{}", halfway.out);
    halfway.good();
    server.connect().send(&common::frame(kind::END, &[2]));
    until("the draw", || server.log().draws() == 1);
    let after = audit(&setup, &["winners"]);
    assert_eq!(after.table()[1..], [["1", "11", "1"], ["2", "7", "2"], ["all", "18", "3"]]);
    assert!(after.out.contains("winning number: 7574 (as drawn"), "{}", after.out);
    assert!(
        after.out.contains("18 bets of 2 agencies; draw of 2 agencies: winning number 7574, "),
        "{}",
        after.out
    );
    after.good();
    let checked = audit(&setup, &["check"]);
    assert!(
        checked.out.contains("18 bets of 2 agencies; draw of 2 agencies: winning number 7574, "),
        "{}",
        checked.out
    );
    checked.good();
    assert_eq!(server.bets_file(), rows(&contest()));
}

#[test]
fn the_winners_of_an_agency_are_named_in_their_order() {
    let setup = folder(&contest(), DRAWN);
    let out = audit(&setup, &["winners", "--agency", "2"]).good();
    let documents: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(documents, ["20", "3"]);
    assert!(out.contains("bets of agency 2: 7, winners: 2, digest: "), "{out}");
}

#[test]
fn csv_output_has_nothing_but_csv() {
    let setup = folder(&contest(), DRAWN);
    let out = audit(&setup, &["winners", "--csv"]).good();
    assert_eq!(out, "agency,document\n2,20\n1,\"quo\"\"ted, 1\"\n2,3\n");
    assert_eq!(
        audit(&setup, &["winners", "--csv", "--agency", "1"]).good(),
        "agency,document\n1,\"quo\"\"ted, 1\"\n"
    );
    let no_draw = folder(&contest(), "{\"version\":1,\"ended\":[],\"draw\":null}");
    let early = audit(&no_draw, &["winners", "--csv"]);
    assert!(early.code == Some(0) && early.out.starts_with("agency,document\n2,20\n"), "{early:?}");
    let said = "winning number: 7574 (LOTTERY_WINNER_NUMBER of the configuration)\n./bets.csv: 18 bets of 2 agencies; \
                0 of 5 agencies (CLIENTS_AMOUNT) ended; ";
    assert!(early.error.starts_with(said), "{early:?}");
    let other = audit(&setup, &["winners", "--csv", "--number", "3"]);
    assert_eq!((other.code, &*other.out), (Some(1), "agency,document\n1,10000003\n2,20000003\n"));
    assert!(
        other.error.contains("bets.csv.state: error: the winning number of the draw is 7574, not 3\n"),
        "{}",
        other.error
    );
}

/// The rows of `bets.csv` that awk finds.
fn rows_by_awk(setup: &Setup, condition: &str) -> Vec<u8> {
    let mut awk = Command::new("awk");
    let found =
        output(awk.args(["-F,", condition, "bets.csv"]).env("LC_ALL", "C").current_dir(setup.path(".")));
    assert!(found.status.success() && !found.stdout.is_empty(), "{}", text(&found.stderr));
    found.stdout
}

#[test]
fn the_rows_of_the_winners_are_those_that_another_tool_finds() {
    let mut all: Vec<Bet> = (1..4).flat_map(|agency| bets(agency, 0..3000)).collect();
    all.sort_by_key(|bet| bet.number); // The agencies' rows alternate.
    all.extend(contest());
    let setup =
        folder(&all, DRAWN.replace("[1,2]", "[1,2,3]").replace("\"agencies\":2", "\"agencies\":3").as_str());
    let winning = rows_by_awk(&setup, "$NF == \"7574\\r\"");
    assert_eq!(audit(&setup, &["winners", "--rows", "-"]).good().into_bytes(), winning);
    assert_eq!(audit(&setup, &["winners", "--rows", "rows.csv"]).good(), "");
    assert_eq!(std::fs::read(setup.path("rows.csv")).unwrap(), winning);
    let of_two = audit(&setup, &["winners", "--rows", "-", "--agency", "2"]).good();
    assert_eq!(of_two.into_bytes(), rows_by_awk(&setup, "$1 == 2 && $NF == \"7574\\r\""));

    std::fs::remove_file(setup.path("bets.csv.state")).unwrap();
    let other = audit(&setup, &["winners", "--rows", "rows.csv", "--number", "5"]);
    assert_eq!((other.code, &*other.out), (Some(0), ""));
    assert!(other.error.starts_with("winning number: 5 (as asked for)\n"), "{}", other.error);
    assert_eq!(std::fs::read(setup.path("rows.csv")).unwrap(), rows_by_awk(&setup, "$NF == \"5\\r\""));
}

#[test]
fn a_file_of_rows_is_replaced_as_a_whole_or_not_at_all() {
    let setup = folder(&contest(), DRAWN).write("rows.csv", "before");
    let files = |setup: &Setup| std::fs::read_dir(setup.path(".")).unwrap().count();
    let [bets, state] = ["bets.csv", "bets.csv.state"].map(|name| std::fs::read(setup.path(name)).unwrap());
    std::os::unix::fs::symlink("bets.csv", setup.path("link.csv")).unwrap();
    std::os::unix::fs::symlink(".", setup.path("here")).unwrap();
    std::fs::create_dir(setup.path("sub")).unwrap();
    for own in ["bets.csv", "./bets.csv.state", "link.csv", "sub/../bets.csv.state", "here/bets.csv.state"] {
        let refused = audit(&setup, &["winners", "--rows", own]);
        let error = format!("loteria: {own}: this is a file of the contest: name another one\n");
        assert_eq!((refused.code, refused.error), (Some(1), error));
    }
    assert_eq!(std::fs::read(setup.path("bets.csv")).unwrap(), bets);
    assert_eq!(std::fs::read(setup.path("bets.csv.state")).unwrap(), state);
    std::fs::remove_file(setup.path("bets.csv.state")).unwrap();
    assert_eq!(audit(&setup, &["winners", "--rows", "sub/../bets.csv.state"]).code, Some(1));
    let setup = setup.write("bets.csv.state", &state);
    let missing = audit(&setup, &["winners", "--rows", "nowhere/rows.csv"]);
    assert_eq!(missing.error, "loteria: nowhere/rows.csv: No such file or directory (os error 2)\n");

    let setup = setup.write("bets.csv", [&bets[..], b"damaged\r\n"].concat());
    let before = files(&setup);
    let damaged = audit(&setup, &["winners", "--rows", "rows.csv"]);
    assert_eq!((damaged.code, &*damaged.out), (Some(1), ""));
    assert!(
        damaged.error.ends_with("\nrows.csv: not written, because of these errors\n"),
        "{}",
        damaged.error
    );
    assert_eq!(std::fs::read(setup.path("rows.csv")).unwrap(), b"before");
    assert_eq!(files(&setup), before, "no other file is left behind");

    let setup = setup.write("bets.csv", &bets);
    std::os::unix::fs::symlink("rows.csv", setup.path("to-rows.csv")).unwrap();
    std::fs::set_permissions(setup.path("rows.csv"), Permissions::from_mode(0o640)).unwrap();
    audit(&setup, &["winners", "--rows", "to-rows.csv"]).good();
    assert_eq!(std::fs::read(setup.path("rows.csv")).unwrap(), rows(&contest_winners()));
    assert_eq!(std::fs::metadata(setup.path("rows.csv")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(
        audit(&setup, &["winners", "--rows", "/dev/full"]).error,
        "loteria: /dev/full: No space left on device (os error 28)\n"
    );
    assert_eq!(audit(&setup, &["winners", "--rows", "-", "--csv"]).code, Some(2));
}

#[test]
fn the_winning_number_comes_from_the_flag_or_the_draw_or_the_configuration() {
    let drawn = folder(&contest(), DRAWN).write("config.ini", "[DEFAULT]\nLOTTERY_WINNER_NUMBER = 3\n");
    assert!(audit(&drawn, &["winners"]).good().starts_with("winning number: 7574 (as drawn"));
    let not_drawn = drawn.write("bets.csv.state", "{\"version\":1,\"ended\":[],\"draw\":null}");
    let configured = audit(&not_drawn, &["winners"]);
    assert!(configured.out.starts_with("winning number: 3 (LOTTERY_WINNER_NUMBER"), "{}", configured.out);
    assert_eq!(configured.table().last().unwrap(), &["all", "18", "2"]);
    assert!(
        audit(&not_drawn, &["winners", "--number", "4"]).good().starts_with("winning number: 4 (as asked")
    );
    let fewer = audit(&not_drawn.write("config.ini", "[DEFAULT]\nCLIENTS_AMOUNT = 1\n"), &["winners"]);
    let no_part = "./bets.csv:11: error: agency 2 does not take part: only 1 to 1 do, says CLIENTS_AMOUNT\n";
    assert!(fewer.code == Some(1) && fewer.out.contains(no_part), "{fewer:?}");
}

#[test]
fn a_state_file_that_contradicts_the_bets_is_an_error_of_both_commands() {
    let draw = r#""draw":{"at":"2026-03-01T20:15:00-03:00","agencies":2,"winning_number":7574}"#;
    for (state, reason) in [
        (format!("{{\"version\":1,\"ended\":[1],{draw}}}"), "no END of these agencies: 2"),
        (format!("{{\"version\":1,\"ended\":[1,2,3],{draw}}}"), "ENDs of agencies that do not take part"),
        (
            DRAWN.replace("\"agencies\":2", "\"agencies\":1"),
            "agency 2 does not take part: only 1 to 1 do, says the draw",
        ),
        (format!("{{\"version\":1,\"ended\":[1,2],{draw},\"writing\":null}}"), "it is damaged"),
        ("{".to_owned(), "at line 1 column 1; restore both files from one backup"),
        ("2".to_owned(), "expected an object with a version"),
        (
            r#"{"version":1,"ended":[1,9,10,11,12,13,14,15],"draw":null}"#.to_owned(),
            "ENDs of agencies that do not take part (1 to 5 do): 9, 10, 11, 12, 13 and 2 more",
        ),
        (DRAWN.replace("\"version\":1", "\"version\":3"), "it has version 3"),
    ] {
        let setup = folder(&contest(), &state);
        for command in ["winners", "check"] {
            let audit = audit(&setup, &[command]);
            assert_eq!((audit.code, &*audit.error), (Some(1), ""), "{}", audit.out);
            assert!(audit.out.contains(": error: ") && audit.out.contains(reason), "{}", audit.out);
        }
        assert_eq!(audit(&setup, &["winners"]).table().last().unwrap(), &["all", "18", "3"]);
    }
}

#[test]
fn a_torn_last_row_is_a_notice_and_after_the_draw_an_error() {
    let torn = [rows(&contest()), b"1,\"Ana".to_vec()].concat();
    let setup = folder(&[], "{\"version\":1,\"ended\":[],\"draw\":null}").write("bets.csv", &torn);
    for command in ["winners", "check"] {
        let out = audit(&setup, &[command]).good();
        let notice = "bets.csv: notice: the last 6 bytes are not a whole row, and not counted: a server is writing them";
        assert!(out.contains(notice), "{out}");
    }
    let drawn = setup.write("bets.csv.state", DRAWN);
    let error =
        "bets.csv: error: the last 6 bytes are not a whole row, and not counted: nothing is written after";
    for command in ["winners", "check"] {
        let damaged = audit(&drawn, &[command]);
        assert!(damaged.code == Some(1) && damaged.out.contains(error), "{damaged:?}");
    }
    let machines = audit(&drawn, &["winners", "--csv"]);
    assert!(machines.code == Some(1) && machines.error.contains(error), "{machines:?}");
    assert_eq!(drawn.bets_file(), torn);
}

#[test]
fn a_special_file_and_an_agency_outside_the_draw_are_reported() {
    let setup = folder(&contest(), DRAWN);
    nix::unistd::mkfifo(&setup.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for special in ["/dev/null", "pipe"] {
        let refused = audit(&setup, &["check", "--file", special]);
        let error = format!("loteria: {special}: not a regular file\n");
        assert_eq!((refused.code, refused.error), (Some(1), error));
    }
    let refused = |arguments: &[&str], agencies: &str| {
        let of_none = audit(&setup, &[&["winners", "--agency", "9"], arguments].concat());
        let error = format!("loteria: there is no agency 9: the agencies are 1 to {agencies}\n");
        assert_eq!((of_none.code, &*of_none.out, of_none.error), (Some(2), "", error));
    };
    for arguments in [&[][..], &["--csv"], &["--rows", "-"], &["--rows", "rows.csv"]] {
        refused(arguments, "2, says the draw in ./bets.csv.state");
    }
    std::fs::remove_file(setup.path("bets.csv.state")).unwrap();
    refused(&[], "5, says CLIENTS_AMOUNT");
    nix::unistd::mkfifo(&setup.path("bets.csv.state"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let waits = audit(&setup, &["check"]);
    assert!(
        waits.code == Some(1) && waits.error.contains("the state file must be a regular file"),
        "{waits:?}"
    );
    assert!(setup.run().failure().contains("the state file must be a regular file"));
}

#[test]
fn a_damaged_row_is_an_error_of_a_recount_and_the_other_rows_are_counted() {
    let file = [rows(&contest()), b"x\r\n".to_vec(), rows(&contest())].concat();
    let recount = audit(&folder(&[], DRAWN).write("bets.csv", file), &["winners"]);
    assert_eq!((recount.code, &*recount.error), (Some(1), ""));
    assert!(
        recount.out.contains("bets.csv:19: error: the line does not have the 6 fields"),
        "{}",
        recount.out
    );
    assert_eq!(recount.table().last().unwrap(), &["all", "36", "6"]);
}

/// A finding without what to do, a summary without its numbers.
fn before_the_advice(line: &str) -> &str {
    ["; restore", "; or restore", "; errors"].iter().fold(line, |line, end| line.split(end).next().unwrap())
}

#[test]
fn each_error_is_reported_with_its_line_and_reason() {
    let good = "1,a,b,c,1999-03-17,7\r\n";
    let (long_text, long_line) =
        (format!("1,{},b,c,1999-03-17,7\r\n", "x".repeat(256)), "x,".repeat(1000) + "\r\n");
    let file = [
        good,
        "2,\"a\r\n",
        "1,a,b,c,1999-02-29,7\r\n",
        "\r\n",
        "0,a,b,c,1999-03-17,7\r\n",
        "9,a,b,c,1999-03-17,7\r\n",
        "1,a,b,c,1999-03-17,07\r\n",
        "1,a,b,c,1999-03-17,7\n",
        good,
        "\"1,a,b,c,1999-03-17,7\r\n",
        "2,a,\"b\",c,1999-03-17,8\r\n",
        "2,a,b\tb,c,1999-03-17,8\r\n",
        &long_text,
        &long_line,
    ];
    let mut bytes = file.concat().into_bytes();
    bytes.extend(b"1,\xff,b,c,1999-03-17,7\r\n");
    bytes.extend(good.as_bytes());
    let setup = Setup::new().write("other.csv", bytes);
    let checked = audit(&setup, &["check", "--file", "other.csv"]);
    let expected = [
        "other.csv:2: error: a quote that opens in this line is not closed in it",
        "other.csv:3: error: the birthdate must be a real date, written YYYY-MM-DD",
        "other.csv:4: error: the line is empty: remove it (sed -i '/^[ ,;\\t\\r]*$/d' other.csv)",
        "other.csv:5: error: the agency must be a decimal number from 1 to 65535",
        "other.csv:7: error: the agency or the number has leading zeros",
        "other.csv:8: error: the line does not end with CRLF: write CRLF (sed -i -e 's/\\r*$/\\r/' -e '$a\\' other.csv)",
        "other.csv:11: error: fields are in quotes without a comma or a quote in them: save the file without them",
        "other.csv:12: error: the last name must not hold a control character (U+0000 to U+001F, U+007F), such as a tab or a line break",
        "other.csv:13: error: the first name must be at most 255 bytes long",
        "other.csv:14: error: the line is longer than 1568 bytes, the longest row",
        "other.csv:15: error: the line is not UTF-8 text, but perhaps Latin-1 or Windows-1252: if the whole file is, convert it (iconv -f WINDOWS-1252 -t UTF-8 other.csv > other.csv.utf8) and put the result in its place",
        "other.csv:6: error: agency 9 does not take part: only 1 to 5 do, says CLIENTS_AMOUNT",
        "other.csv: 4 bets of 2 agencies; no state file: no agency has ended, or it is missing",
    ];
    assert_eq!((checked.code, &*checked.error), (Some(1), ""));
    let said: Vec<&str> = checked.out.lines().map(before_the_advice).collect();
    assert_eq!(said, expected);
    let lost = "; restore both files from one backup; take the line out only if you accept that an acknowledged bet is lost";
    assert!(checked.out.contains(&format!("not closed in it{lost} (2 lines: 2, 10)\n")), "{}", checked.out);
    assert!(checked.out.ends_with("; errors: 13, notices: 0\n"), "{}", checked.out);
}

/// The file is sparse behind its first row, and short enough for a debug build to read it in two seconds.
#[test]
fn a_stray_quote_at_the_start_of_a_long_file_is_named_in_little_memory() {
    let setup = Setup::new().write("bets.csv", "1,\"Ana,Paz,5,2000-02-29,1\r\n");
    File::options().write(true).open(setup.bets_path()).unwrap().set_len(200_000_000).unwrap();
    for command in ["winners", "check"] {
        let script = format!("ulimit -v {} && exec \"$0\" {command}", 34 * 1024);
        let mut shell = Command::new("sh");
        let output = output(shell.args(["-c", &script, &PROGRAM]).current_dir(setup.path(".")).env_clear());
        let said = text(&output.stdout) + &text(&output.stderr);
        let expected = "bets.csv:1: error: a quote that opens in this line is not closed in it";
        assert!(output.status.code() == Some(1) && said.contains(expected), "{said}");
    }
}

#[test]
fn the_first_hundred_findings_are_listed_and_all_are_counted() {
    let outside: Vec<Bet> = (6..256).flat_map(|agency| bets(agency, 0..1)).collect();
    let setup = Setup::new().write("bets.csv", rows(&outside));
    let out = audit(&setup, &["check"]).out;
    assert_eq!(out.matches(": error: ").count(), 100);
    assert!(out.contains("\nand 150 more errors\n"), "{out}");
    assert!(out.ends_with("errors: 250, notices: 0\n"), "{out}");
}

#[test]
fn an_agency_outside_the_contest_does_not_hide_other_errors() {
    let mut file = rows(&[bets(7, 0..500), bets(8, 0..2), bets(1, 0..1)].concat());
    file.extend(b"damaged\r\n");
    let setup = Setup::new().write("bets.csv", file);
    let checked = audit(&setup, &["check"]);
    let expected = [
        "./bets.csv:504: error: the line does not have the 6 fields of a bet, separated by commas",
        "./bets.csv:1: error: agency 7 does not take part: only 1 to 5 do, says CLIENTS_AMOUNT",
        "./bets.csv:501: error: agency 8 does not take part: only 1 to 5 do, says CLIENTS_AMOUNT",
        "./bets.csv: 503 bets of 3 agencies; no state file: no agency has ended, or it is missing",
    ];
    assert_eq!(checked.out.lines().map(before_the_advice).collect::<Vec<_>>(), expected);
    let setup = setup.write("bets.csv.state", DRAWN);
    let audit = audit(&setup, &["winners"]);
    let error = "./bets.csv:1: error: agency 7 does not take part: only 1 to 2 do, says the draw\n";
    assert!(audit.out.contains(error) && audit.out.contains("; draw of 2 agencies: "), "{}", audit.out);
    let table = [["1", "1", "0"], ["2", "0", "0"], ["7", "500", "0"], ["8", "2", "0"], ["all", "503", "0"]];
    assert_eq!(audit.table()[1..], table);
}

#[test]
fn a_state_that_is_possible_but_unusual_is_a_notice() {
    let all_ended = "{\"version\":1,\"ended\":[1,2,3,4,5],\"draw\":null}";
    let setup = folder(&contest(), all_ended);
    for command in ["winners", "check"] {
        let out = audit(&setup, &[command]).good();
        assert!(out.contains("notice: all agencies from 1 to CLIENTS_AMOUNT, which is 5"), "{out}");
    }
    let setup = setup.write("bets.csv.state", DRAWN);
    let check = || audit(&setup, &["check"]).good();
    let out = check();
    assert!(!out.contains("the draw holds"), "a default does not contradict the draw: {out}");
    let config =
        setup.clone().write("config.ini", "[DEFAULT]\nCLIENTS_AMOUNT = 5\nLOTTERY_WINNER_NUMBER = 7574\n");
    let differs = ": notice: the draw holds: CLIENTS_AMOUNT was 2, not 5 (config.ini line 2)\n";
    let out = check();
    assert!(out.contains(differs) && out.matches("the draw holds").count() == 1, "{out}");
    let both = command(&config, &["check"]).env("LOTTERY_WINNER_NUMBER", "3").output().unwrap();
    let out = text(&both.stdout);
    let number = ": notice: the draw holds: LOTTERY_WINNER_NUMBER was 7574, not 3 (environment variable LOTTERY_WINNER_NUMBER)\n";
    assert!(out.contains(differs) && out.contains(number), "{out}");
    let fewer = setup
        .write("bets.csv.state", "{\"version\":1,\"ended\":[1,2,3,4,5],\"draw\":null}")
        .write("config.ini", "[DEFAULT]\nCLIENTS_AMOUNT = 4\n");
    let checked = audit(&fewer, &["check"]);
    assert!(checked.code == Some(1) && !checked.out.contains("notice:"), "{checked:?}");
}

#[test]
fn a_missing_file_and_a_wrong_configuration_are_reported_in_one_line() {
    let setup = Setup::new();
    for what in ["winners", "check"] {
        let missing = audit(&setup, &[what]);
        assert_eq!((missing.code, &*missing.out), (Some(1), ""));
        let error = "loteria: ./bets.csv: No such file or directory (os error 2); the configuration's STORAGE_FILEPATH \
                     is ./bets.csv, --file names another file\n";
        assert_eq!(missing.error, error);
        let named = audit(&setup, &[what, "--file", "other.csv"]);
        assert_eq!(named.error, "loteria: other.csv: No such file or directory (os error 2)\n");
        let folder = setup.clone().write("config.ini", "[DEFAULT]\nCLIENTS_AMOUNT = 0\n");
        let configured = audit(&folder, &[what]);
        assert!(configured.code == Some(2) && configured.error.contains("CLIENTS_AMOUNT"), "{configured:?}");
        std::fs::remove_file(setup.path("config.ini")).unwrap();
        assert_eq!(audit(&setup, &[what, "--nonsense"]).code, Some(2));
    }
}

#[test]
fn a_reader_that_stops_after_one_line_ends_the_command_silently() {
    let winners: Vec<Bet> = (0..50_000).map(|index| winner(1, &index.to_string())).collect();
    let setup = folder(&winners, DRAWN);
    for arguments in [&["winners", "--csv"][..], &["winners", "--rows", "-"], &["winners", "--agency", "1"]] {
        let mut process =
            Running::start(command(&setup, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (mut line, mut error) = (String::new(), String::new());
        BufReader::with_capacity(16, process.stdout()).read_line(&mut line).unwrap();
        let code = process.end().code();
        process.stderr().read_to_string(&mut error).unwrap();
        assert_eq!((code, &*error), (Some(141), ""), "{line}");
    }
}

#[test]
fn on_a_terminal_a_bar_shows_the_progress_and_only_the_report_stays() {
    let setup = Setup::new();
    let good = "1,Santiago Lionel,Lorca,30904465,1999-03-17,7574\r\n".repeat(60_000);
    let setup = setup.write("bets.csv", ["x\r\n", &good].concat());
    let report = audit(&setup, &["check"]).out;
    for columns in [200, 40, 9] {
        let left = OnTerminal::start(command(&setup, &["check"]), (1000, columns)).end();
        assert_eq!(left.code, Some(1));
        assert!(left.written.contains(" MiB of 2.86 MiB"), "no bar in {columns} columns");
        assert_eq!(left.screen.trim_end(), report.trim_end(), "{columns} columns");
    }
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let setup = Setup::new();
    let block = "1,Santiago Lionel,Lorca,30904465,1999-03-17,7574\r\n2,Ana,Paz,30111222,1980-01-02,1\r\n"
        .repeat(10_000);
    let mut file = File::create(setup.bets_path()).unwrap();
    for _ in 0..20 {
        file.write_all(block.as_bytes()).unwrap();
    }
    drop(file);
    // The limit is in KiB and includes the program and its libraries. The file has 17 MB.
    let limited = "ulimit -v 24000 && exec \"$0\" winners";
    let mut shell = Command::new("sh");
    let output = output(shell.args(["-c", limited, &PROGRAM]).current_dir(setup.path(".")).env_clear());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("400000"));
}
