//! A password typed at a terminal shows nowhere on it.

use interlock_tests::terminal::Terminal;

use crate::stage::Stage;

/// Signs in as `w1`, by hand.
pub(crate) fn password_at_a_prompt(stage: &mut Stage) {
    let mut terminal = Terminal::run(&stage.home.command(["login", "w1"]));
    terminal.answer("Password of w1: ", stage.pair.world.password("w1"));
    let (status, shown) = terminal.end();
    let text = String::from_utf8_lossy(&shown);
    assert!(status.success() && text.contains("signed in as w1"), "{text}");
    stage.printed.extend_from_slice(&shown);
}
