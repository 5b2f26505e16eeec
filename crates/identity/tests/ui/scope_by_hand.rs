//! A scope is made only by a session.

fn main() {
    let _ = identity::TenantScope { tenant: todo!(), user: todo!(), session: todo!() };
}
