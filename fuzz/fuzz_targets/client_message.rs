//! Messages of a client: frame, message, records and rows, decoded as a handler does; the rows also as storage does.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loteria::lottery::row::{RowError, encode_row, for_each_row, parse_row};
use loteria::protocol::frame::{Frame, push_frame};
use loteria::protocol::message::ClientMessage;
use loteria::protocol::record::{RECORD_SEPARATOR, count_records, for_each_bet, push_record, push_rows};

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, payload)) = bytes.split_first() else { return };
    let Ok(message) = ClientMessage::decode(Frame { kind, payload }) else { return };
    let (mut came, mut again) = (Vec::new(), Vec::new());
    push_frame(kind, &[payload], &mut came);
    message.encode(&mut again);
    assert_eq!(came, again);
    match message {
        ClientMessage::Bet(records)
        | ClientMessage::MultipleBets(records)
        | ClientMessage::SessionBets { records, .. } => check_records(records),
        _ => {}
    }
});

fn check_records(payload: &[u8]) {
    let mut rows = Vec::new();
    let mut records = Vec::new();
    let outcome = for_each_bet(payload, |bet| {
        let from = rows.len();
        encode_row(bet, &mut rows);
        let row = parse_row(&rows[from..]).expect("what was encoded is a row");
        assert_eq!((row.agency, row.number), (bet.agency, bet.number));
        assert_eq!(row.document, bet.document);
        if !records.is_empty() {
            records.push(RECORD_SEPARATOR);
        }
        push_record(bet, &mut records);
    });
    let Ok(count) = outcome else { return };
    assert_eq!(count, count_records(payload));
    // Numbers lose their leading zeros; then the records are the same, and come to the same rows.
    let mut again = Vec::new();
    assert_eq!(push_rows(&records, &mut again, |_| ()), Ok(count));
    assert_eq!(rows, again);
    // Nor does it matter whether a message is taken as a whole.
    again.clear();
    assert_eq!(push_rows(payload, &mut again, |_| ()), Ok(count));
    assert_eq!(rows, again);
    let mut found = 0;
    let all: Result<(), RowError> = for_each_row(&rows, |_| {
        found += 1;
        Ok(())
    });
    assert_eq!((all, found), (Ok(()), count));
}
