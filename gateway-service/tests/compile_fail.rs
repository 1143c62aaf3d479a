//! What the compiler refuses: a write without a permit, rows reached past `Tx`, a permit or a project
//! scope made outside the policy, a binding without an entrance.

#[test]
fn the_compiler_refuses() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
