//! Who merely calls has no session, whatever token came along.

use api::types::{Caller, Change, Precondition, RecordAt, WriteOptions};

async fn delete(core: &dyn api::Core, caller: &Caller, at: &RecordAt, options: &WriteOptions) {
    let _ = core.write_record(caller, caller, at, Change::Delete, Precondition::Exists, options).await;
}

fn main() {}
