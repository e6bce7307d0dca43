//! Messages between processes: no input makes a decoder panic, and what was decoded is encoded to the same bytes.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use loteria::ipc::codec::{decode, encode};
use loteria::ipc::control::{StorageReady, ToStorage};
use loteria::ipc::keeper::{KeeperReady, KeeperReply, Question, ToKeeper, decode_fields, encode_fields};
use loteria::ipc::messages::{AgencyCount, PartHead, ReplyHead};

fn check<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok((head, rest)) = decode::<T>(bytes) else { return };
    let mut out = vec![0; bytes.len()];
    let length = encode(&head, &mut out).expect("it is no longer than it was");
    assert_eq!(length + rest.len(), bytes.len());
    assert_eq!(out[..length], bytes[..length]);
}

fuzz_target!(|bytes: &[u8]| {
    check::<PartHead>(bytes);
    check::<ReplyHead>(bytes);
    check::<ToStorage>(bytes);
    check::<StorageReady>(bytes);
    check::<AgencyCount>(bytes);
    check::<ToKeeper>(bytes);
    check::<KeeperReady>(bytes);
    check::<KeeperReply>(bytes);
    check::<Question>(bytes);
    if let Ok(fields) = decode_fields(bytes) {
        assert_eq!(encode_fields(&fields).expect("they were decoded"), bytes);
    }
});
