//! A session is made only by verifying a token.

#![allow(unreachable_code)]

fn main() {
    let _ = identity::Session { claims: todo!(), account: todo!() };
}
