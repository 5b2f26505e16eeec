//! openraft's own conformance suite on our log and state machine.

use crate::log::LogStore;
use crate::state::StateMachine;
use crate::test_machine::Journal;
use crate::types::Types;
use model::GroupId;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use storage::{Engine, MemoryEngine};

struct Fresh;

impl StoreBuilder<Types, LogStore, StateMachine, MemoryEngine> for Fresh {
    async fn build(&self) -> Result<(MemoryEngine, LogStore, StateMachine), StorageError<Types>> {
        let engine = MemoryEngine::auto_sync();
        let log = LogStore::open(GroupId::new(1), engine.log()).expect("an empty log opens");
        let (state, _) = StateMachine::open(Journal::open(&engine)).expect("an empty space opens");
        Ok((engine, log, state))
    }
}

#[tokio::test]
async fn our_log_and_state_machine_conform_to_openraft() {
    Suite::test_all(Fresh).await.expect("the suite passes");
}
