//! Projects as people and programs meet them: the project file of a folder, and the three locks on real servers.

mod folders;
mod load;
mod tokens;
