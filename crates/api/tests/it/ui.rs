//! Programs that must not compile.

#[test]
fn no_record_is_reached_without_a_verified_session() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
