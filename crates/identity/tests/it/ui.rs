//! Programs that must not compile.

#[test]
fn sessions_and_scopes_cannot_be_built_by_hand() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
