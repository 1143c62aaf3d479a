//! What any server of ours needs and no domain noun
