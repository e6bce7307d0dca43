//! Rows of the bets file: a line that is accepted is exactly what would be written for the same bet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loteria::lottery::Bet;
use loteria::lottery::row::{MAX_ROW, RowError, encode_row, for_each_row, parse_row};

fuzz_target!(|bytes: &[u8]| {
    let line = [bytes, b"\r\n"].concat();
    let Ok(row) = parse_row(&line) else { return };
    assert!(!bytes.contains(&b'\n') && line.len() <= MAX_ROW);
    let mut rows = 0;
    let twice = for_each_row(&line.repeat(2), |one| {
        rows += 1;
        assert_eq!(one, row);
        Ok::<(), RowError>(())
    });
    assert_eq!((twice, rows), (Ok(()), 2));
    let fields = fields_of(&line);
    let bet = Bet::from_fields(fields.each_ref().map(String::as_str)).expect("a row is a bet");
    assert_eq!((row.agency, row.number, &*row.document), (bet.agency, bet.number, bet.document));
    let mut again = Vec::new();
    encode_row(&bet, &mut again);
    assert_eq!(line, again);
});

/// The fields of a row, split by simpler means.
fn fields_of(line: &[u8]) -> [String; 6] {
    let text = std::str::from_utf8(line).expect("a row is text").trim_end_matches("\r\n");
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut last = ',';
    for next in text.chars() {
        match next {
            '"' if !quoted && last == '"' => fields.last_mut().expect("one").push('"'),
            ',' if !quoted => fields.push(String::new()),
            '"' => {}
            other => fields.last_mut().expect("one").push(other),
        }
        quoted ^= next == '"';
        last = next;
    }
    fields.try_into().expect("a row has 6 fields")
}
