//! A scope is made only by a session.

#![allow(unreachable_code)]

fn main() {
    let _ = identity::TenantScope { tenant: todo!(), user: todo!(), session: todo!() };
}
