//! A session is not made from nothing.

fn needs_default<T: Default>() {}

fn main() {
    needs_default::<identity::Session>();
}
