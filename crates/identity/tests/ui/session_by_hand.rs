//! A session is made only by verifying a token.

fn main() {
    let _ = identity::Session { claims: todo!(), account: todo!() };
}
