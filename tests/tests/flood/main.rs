//! Floods, silent sockets, readers that stop, file descriptors that run out: at the real programs, each beside
//! an honest client whose calls are all answered.
//!
//! - `silent`: 1,000 sockets that fall silent in five phases, and the caps on connections;
//! - `floods`: too much of every kind on one connection, and of connections;
//! - `tokens`: credentials that look good and are not, at speed;
//! - `joins`: what a refused join costs, whatever is wrong with it;
//! - `sign_ins`: guesses that fill the queue of the hasher, beside who was let in before;
//! - `room`: calls and parked calls beyond their bounds;
//! - `reader`: one that stops while 40,000 small events are made for it;
//! - `descriptors`: none left.
//!
//! Figures are printed (`--no-capture`). Asserted are what HARDENING.md says of answers, that memory comes back,
//! and that everything ends; not the machine's speed.

mod descriptors;
mod floods;
mod honest;
mod joins;
mod process;
mod reader;
mod room;
mod sign_ins;
mod silent;
mod target;
mod tokens;
