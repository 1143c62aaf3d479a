//! Connections, typed errors, sessions, jobs, worker and verifier for Rust programs
