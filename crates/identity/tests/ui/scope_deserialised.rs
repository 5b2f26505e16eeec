//! A scope or a session is not read from bytes.

fn read<T: for<'a> serde::Deserialize<'a>>() {}

fn main() {
    read::<identity::TenantScope>();
    read::<identity::Session>();
}
