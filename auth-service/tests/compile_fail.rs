//! What must not compile: a write without its permit, a permit out of thin air, rows past the door.

#[test]
fn the_compiler_refuses() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
