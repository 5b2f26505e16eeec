//! The messages of a group between nodes: one version byte, then postcard.
//!
//! A request begins with its group, so that a node can route it without understanding it.

use crate::types::{SnapshotMeta, Types, Vote};
use bytes::Bytes;
use model::{GroupId, codec};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize};
use storage::FileMeta;

/// A question to another member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub group: GroupId,
    pub body: Question,
}

/// What is asked. The order of the variants is on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    Append { order: Option<Order>, request: AppendEntriesRequest<Types> },
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Transfer(TransferLeaderRequest<Types>),
}

/// Where an append stands among those that are on their way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Which series of appends of this leader.
    pub session: u64,
    /// Its place in the series, from 0.
    pub place: u64,
}

/// What is answered; the variant matches the question's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    PreVote(VoteResponse<Types>),
    /// Whether the target accepted the leadership.
    Transfer(TransferLeaderResponse<Types>),
}

/// The first frame of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub group: GroupId,
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub files: Vec<FileMeta>,
}

/// The receiver's frames of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Receipt {
    /// Send these files, by their place in the offer, in this order.
    Want(Vec<u32>),
    /// Installed, or superseded by this vote.
    Done(Vote),
}

/// A piece of a file: they arrive in order, file after file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub file: u32,
    pub bytes: Bytes,
}

/// Which group a request or the first frame of a snapshot is for; `None` if it is not one.
pub fn group_of(request: &[u8]) -> Option<GroupId> {
    let (version, body) = request.split_first()?;
    if *version != codec::VERSION {
        return None;
    }
    postcard::take_from_bytes::<GroupId>(body).ok().map(|(group, _)| group)
}

/// Whether a request asks for a vote: a node that lost its disk must not give one.
pub fn asks_for_vote(request: &[u8]) -> bool {
    matches!(codec::decode::<Request>(request), Ok(Request { body: Question::Vote(_) | Question::PreVote(_), .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_group_of_a_request_is_read_without_its_body() {
        let request =
            Request { group: GroupId::new(513), body: Question::Vote(VoteRequest::new(Vote::new(3, 7), None)) };
        let bytes = codec::encode(&request);
        assert_eq!(group_of(&bytes), Some(GroupId::new(513)));
        assert_eq!(group_of(&bytes[..2]), None);
        assert_eq!(group_of(&[]), None);
        assert_eq!(group_of(&[9, 1]), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = group_of(&bytes);
            let _ = codec::decode::<Request>(&bytes);
            let _ = codec::decode::<Answer>(&bytes);
            let _ = codec::decode::<Offer>(&bytes);
            let _ = codec::decode::<Receipt>(&bytes);
            let _ = codec::decode::<Piece>(&bytes);
            let _ = codec::decode::<crate::types::Entry>(&bytes);
        }

        #[test]
        fn bytes_after_a_valid_version_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 1..512)) {
            bytes[0] = codec::VERSION;
            let _ = codec::decode::<Request>(&bytes);
            let _ = codec::decode::<Answer>(&bytes);
            let _ = codec::decode::<Offer>(&bytes);
            let _ = codec::decode::<Receipt>(&bytes);
            let _ = codec::decode::<Piece>(&bytes);
            let _ = codec::decode::<crate::types::Entry>(&bytes);
        }
    }
}
