//! What other nodes send: frames, identities, questions, answers and changes. What is read is written and read again.
#![no_main]

use detection::escalation::ticket::TicketChange;
use detection::incident;
use libfuzzer_sys::fuzz_target;
use model::codec;
use replication::wire::{Answer, Ask};
use replication::{Change, Conflict};
use serde_json::from_slice;
use transport::Identity;

/// Whatever has a stored or sent form: written again it is the same. Forms are compared, for a number that is none
/// equals nothing.
macro_rules! again {
    ($bytes:expr, $decode:expr, $encode:expr) => {
        if let Ok(value) = $decode($bytes) {
            let written = $encode(&value);
            let read = $decode(&written[..]).expect("what was written can be read");
            assert_eq!(written, $encode(&read));
        }
    };
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    transport::fuzz::frames(bytes, piece.into());
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(identity) = text.parse::<Identity>()
    {
        assert_eq!(identity.to_string(), text);
    }
    let _ = Identity::of_certificate(bytes);
    let _ = transport::expires_ms(bytes);
    if let Ok(change) = Change::decode(bytes) {
        let _ = (change.weight(), change.clone().withheld());
    }
    again!(bytes, Change::decode, Change::encode);
    again!(bytes, Ask::decode, Ask::encode);
    again!(bytes, Answer::decode, Answer::encode);
    again!(bytes, codec::decode::<Conflict>, codec::encode);
    again!(bytes, codec::decode::<model::Record>, codec::encode);
    again!(bytes, codec::decode::<model::Table>, codec::encode);
    again!(bytes, codec::decode::<model::Tenant>, codec::encode);
    if let Ok(change) = incident::Change::decode(bytes)
        && let Ok(written) = change.encode()
    {
        assert_eq!(incident::Change::decode(written.as_bytes()), Ok(change));
    }
    if let Ok(change) = from_slice::<TicketChange>(bytes) {
        let _ = change.act.check();
        let _ = detection::escalation::Ticket::fold([change]);
    }
});
