//! A record is not read without a session.

use api::types::{Caller, ReadOptions, RecordAt};

async fn read(core: &dyn api::Core, caller: &Caller, at: &RecordAt) {
    let _ = core.get_record(caller, at, &ReadOptions::default()).await;
}

fn main() {}
