//! A scope has no default.

fn main() {
    let _ = identity::TenantScope::default();
}
