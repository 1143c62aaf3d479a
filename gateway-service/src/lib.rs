//! What a session is bound to and what is running
