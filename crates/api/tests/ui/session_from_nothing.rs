//! A session is not made by the API: not by default, not from a request.

fn needs_default<T: Default>() {}
fn needs_json<T: serde::de::DeserializeOwned>() {}

fn main() {
    needs_default::<identity::Session>();
    needs_json::<identity::Session>();
}
