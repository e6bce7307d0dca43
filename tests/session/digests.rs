//! Digests: what the server says of the bets that are stored.

use common::digest_after;
use loteria::lottery::Digest;

const PROTOCOL_PAGE: &str = include_str!("../../docs/protocol.md");

/// The lines of the page's test vectors, and the digest that each leads to. They were made with Python's `xxhash`.
fn vectors() -> Vec<(Vec<u8>, u64)> {
    let (_, table) = PROTOCOL_PAGE.split_once("bytes  digest so far     line\n").unwrap();
    let lines = table.lines().take_while(|line| !line.starts_with("```"));
    let vector = |line: &str| {
        let [bytes, digest, text]: [&str; 3] =
            line.trim_start().splitn(3, "  ").map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        let bytes: usize = bytes.parse().unwrap();
        let text = if text == "x…" { "x".repeat(bytes - 2) } else { text.to_owned() };
        let row = (text + "\r\n").into_bytes();
        assert_eq!(row.len(), bytes);
        (row, u64::from_str_radix(digest, 16).unwrap())
    };
    lines.map(vector).collect()
}

#[test]
fn the_digests_of_the_protocol_page_are_those_of_two_implementations() {
    let vectors = vectors();
    let lengths: Vec<usize> = vectors.iter().map(|(row, _)| row.len()).collect();
    assert!(lengths.ends_with(&[16, 17, 128, 129, 240, 241, 1000]), "{lengths:?}");
    let (mut own, mut other) = (Digest::default(), 0);
    for (row, digest) in vectors {
        own = own.with_row(&row);
        other = digest_after(other, &row);
        assert_eq!((own.0, other), (digest, digest), "{} bytes", row.len());
    }
}
